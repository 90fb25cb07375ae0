"""Programming problems as a model is asked and its answer is checked; readers for the published forms of four sets.

HumanEval: Chen et al. 2021, arXiv 2107.03374. MBPP: Austin et al. 2021, arXiv 2108.07732. The "plus" sets, with many
more tests: Liu et al. 2023, arXiv 2305.01210.
"""

import ast
import re
import symtable
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from proxybyte.errors import ProxyByteError
from proxybyte.eval.sandbox import Trial

HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Codex' own (Chen et al. 2021, section 2.3), and lm-eval's."""
FEW_SHOT_STOPS = ("[DONE]",)
DOCSTRING_STOPS = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n```")
"""Where the whole program is asked for after a docstring; new functions and imports belong to it."""
_TEST_TASKS = range(11, 511)
"""Task numbers of MBPP's test split; 1 to 10 are for prompts, the rest for training."""


class CodeSet(StrEnum):
    """A published set of problems."""

    HUMANEVAL = "humaneval"
    HUMANEVAL_PLUS = "humaneval-plus"
    MBPP = "mbpp"
    MBPP_PLUS = "mbpp-plus"

    @property
    def is_mbpp(self) -> bool:
        """Whether rows and prompts have MBPP's form."""
        return self in (CodeSet.MBPP, CodeSet.MBPP_PLUS)


class MbppPrompt(StrEnum):
    """How an MBPP problem is put to a model."""

    FEW_SHOT = "few-shot"
    """Three solved examples, as Austin et al. and lm-eval do; the answer ends with ``[DONE]``."""
    DOCSTRING = "docstring"
    """No example: text and tests in a docstring at the top of a file."""


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        task_id: as published.
        prompt: what the model reads; it may end at any byte.
        head: what stands before the completion in the program: the prompt itself, or nothing where the prompt is no
            code.
        tests: code that follows the completion and raises unless it is right.
        entry_point: name of the function asked for; empty where the tests alone know it.
        canonical: a completion that passes, as published.
        stops: strings that end a completion; they are cut off with what follows.
    """

    task_id: str
    prompt: str
    head: str
    tests: str
    entry_point: str
    canonical: str
    stops: tuple[str, ...]

    def program(self, completion: str) -> str:
        """All of it as one source text that raises unless ``completion`` is right."""
        return f"{self.head}{completion}\n{self.tests}\n"

    def trial(self, completion: str) -> Trial:
        """``completion`` and the tests apart, for the sandbox."""
        return Trial(f"{self.head}{completion}\n", self.separate_tests)

    @cached_property
    def separate_tests(self) -> str:
        """The tests as a source text of their own, which import what they ask of the program.

        What that is, the published solution says: of the names that the tests look up and do not bind, those that it
        defines come from the program, those that it imports are imported from where it has them.
        """
        asked, imports = _offered(self.head + self.canonical, self.entry_point)
        wanted = _looked_up(self.tests)
        lines = [line for name, line in imports.items() if name in wanted or name == "*"]
        names = [name for name in asked if name in wanted]
        return "\n".join([*dict.fromkeys(lines), *(f"from program import {name}" for name in names), self.tests, ""])


def _offered(solution: str, entry_point: str) -> tuple[list[str], dict[str, str]]:
    """Names that a source text defines at its top level, and by name the lines that import others."""
    imports: dict[str, str] = {}
    try:
        body = ast.parse(solution).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # some published files hold broken solutions
        found = re.findall(r"^(?:async )?(?:def|class) +(\w+)|^(\w+) *=[^=]", solution, re.MULTILINE)
        return list(dict.fromkeys([entry_point, *(first or second for first, second in found)])), _import_lines(
            solution
        )
    names = [entry_point]
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports |= {(alias.asname or alias.name).split(".")[0]: ast.unparse(node) for alias in node.names}
        else:
            names += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return list(dict.fromkeys(names)), imports


def _import_lines(text: str) -> dict[str, str]:
    """By each name, the line of broken source that imports it."""
    found: dict[str, str] = {}
    for line in re.findall(r"^(?:import|from) .+$", text, re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"\w+", line.split("import", 1)[-1]), line)
    return found


def _looked_up(tests: str) -> set[str]:
    """Names that ``tests`` look up outside their functions and never bind there."""
    try:
        tables = [symtable.symtable(tests, "tests", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"\w+", tests))
    bound = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    found = set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        found |= {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module")
        }
    return found - bound


def parse_problems(
    rows: Sequence[dict[str, Any]], code_set: CodeSet, source: str, mbpp_prompt: MbppPrompt = MbppPrompt.FEW_SHOT
) -> list[Problem]:
    """Problems from rows in a published form.

    HumanEval and HumanEval+ (``prompt``, ``entry_point``, ``canonical_solution``, ``test``; ReCode's MBPP has this form
    too), MBPP full (``text``, ``code``, ``test_list``, ``test_setup_code``) and sanitized (``prompt``,
    ``test_imports``), MBPP+ (sanitized, and ``test``). Of a file that holds all of MBPP the test split is taken; MBPP+,
    whose 378 tasks lie between 2 and 809, has none.

    Args:
        rows: one object each.
        code_set: decides prompts and stop strings.
        source: where the rows come from, for messages.
        mbpp_prompt: how MBPP is asked.

    Raises:
        ProxyByteError: if there are no rows, or one has not the fields of its set.
    """
    if not rows:
        raise ProxyByteError(f"{source} holds no problem")
    if "plus_input" in rows[0]:
        raise ProxyByteError(
            f"{source} is EvalPlus' release form, whose tests need its own package: give the Hub's form (key 'test')"
        )
    parse: Callable[[dict[str, Any]], Problem] = _humaneval_problem
    if code_set.is_mbpp and "entry_point" not in rows[0]:
        plus = code_set is CodeSet.MBPP_PLUS
        rows = rows if plus else _test_split(rows)
        parse = _mbpp_parser(mbpp_prompt, plus=plus)
    problems = []
    for number, row in enumerate(rows, start=1):
        try:
            problems.append(_of_texts(parse(row)))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ProxyByteError(
                f"{source}, row {number}: not a problem of {code_set} ({type(error).__name__}: {error})"
            ) from error
    if len({problem.task_id for problem in problems}) < len(problems):
        raise ProxyByteError(f"{source} holds a task_id twice")
    return problems


def _of_texts(problem: Problem) -> Problem:
    """``problem``, whose fields are what a file may say anything in.

    Raises:
        TypeError: if one is no text, or text that UTF-8 cannot write.
    """
    for name in ("task_id", "prompt", "tests", "entry_point", "canonical"):
        value = getattr(problem, name)
        if not isinstance(value, str):
            raise TypeError(f"its {name} is no text but {value!r}")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TypeError(f"character {error.start} of its {name} is half of a pair") from error
    return problem


def _humaneval_problem(row: dict[str, Any]) -> Problem:
    return Problem(
        task_id=str(row["task_id"]),
        prompt=row["prompt"],
        head=row["prompt"],
        tests=f"{row['test']}\ncheck({row['entry_point']})",
        entry_point=row["entry_point"],
        canonical=row["canonical_solution"],
        stops=HUMANEVAL_STOPS,
    )


def _test_split(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    numbered = all(isinstance(row.get("task_id"), int) for row in rows)
    if numbered and min(row["task_id"] for row in rows) <= 10:
        return [row for row in rows if row["task_id"] in _TEST_TASKS]
    return rows


def _mbpp_parser(style: MbppPrompt, *, plus: bool) -> Callable[[dict[str, Any]], Problem]:
    def parse(row: dict[str, Any]) -> Problem:
        setup = [row["test_setup_code"]] if row.get("test_setup_code") else list(row.get("test_imports") or [])
        tests = [row["test"]] if plus else list(row["test_list"])
        problem = Problem(
            task_id=f"MBPP/{row['task_id']}",
            prompt=few_shot_prompt(row),
            head="",
            tests="\n".join([*setup, *tests]),
            entry_point="",
            canonical=row["code"],
            stops=FEW_SHOT_STOPS,
        )
        if style is MbppPrompt.DOCSTRING:
            return replace(problem, prompt=_docstring_prompt(row), stops=DOCSTRING_STOPS)
        return problem

    return parse


def few_shot_prompt(row: dict[str, Any]) -> str:
    """The prompt of Austin et al. with the three examples that lm-eval takes (tasks 2, 3 and 4)."""
    examples = [f"{_question(example)}{example['code']}\n[DONE]\n\n" for example in _EXAMPLES]
    return "".join([*examples, _question(row)])


def _text(row: dict[str, Any]) -> str:
    return row["text"] if "text" in row else row["prompt"]


def _question(row: dict[str, Any]) -> str:
    tests = "\n".join(row["test_list"][:3])
    return (
        f"You are an expert Python programmer, and here is your task: {_text(row)} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def _docstring_prompt(row: dict[str, Any]) -> str:
    tests = "\n".join(row["test_list"][:3])
    return f'"""\n{_text(row)}\n{tests}\n"""\n'


_EXAMPLES: tuple[dict[str, Any], ...] = (
    {
        "text": "Write a function to find the similar elements from the given two tuple lists.",
        "code": "def similar_elements(test_tup1, test_tup2):\r\n"
        "  res = tuple(set(test_tup1) & set(test_tup2))\r\n  return (res) ",
        "test_list": [
            "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)",
            "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)",
            "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)",
        ],
    },
    {
        "text": "Write a python function to identify non-prime numbers.",
        "code": "import math\r\ndef is_not_prime(n):\r\n    result = False\r\n"
        "    for i in range(2,int(math.sqrt(n)) + 1):\r\n        if n % i == 0:\r\n            result = True\r\n"
        "    return result",
        "test_list": [
            "assert is_not_prime(2) == False",
            "assert is_not_prime(10) == True",
            "assert is_not_prime(35) == True",
        ],
    },
    {
        "text": "Write a function to find the largest integers from a given list of numbers "
        "using heap queue algorithm.",
        "code": "import heapq as hq\r\ndef heap_queue_largest(nums,n):\r\n"
        "  largest_nums = hq.nlargest(n, nums)\r\n  return largest_nums",
        "test_list": [
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],2)==[85, 75] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],5)==[85, 75, 65, 58, 35]",
        ],
    },
)
