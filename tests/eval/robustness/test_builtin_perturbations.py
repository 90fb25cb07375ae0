"""Built-in perturbations change how a prompt looks, never what the task is."""

import ast
import random

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.judging import Bench, run_known
from proxybyte.eval.code.problems import CodeSet, parse_problems
from proxybyte.eval.code.sources import load_problems
from proxybyte.eval.robustness.builtin import PERTURBATIONS, perturb_all, perturb_problem
from proxybyte.eval.robustness.edits import Edit, apply_edits
from proxybyte.eval.robustness.measuring import find_ceiling, report_rows
from proxybyte.eval.robustness.variants import Family, split_solution
from proxybyte.eval.sandbox import Limits, Wall, capabilities

HUMANEVAL = load_problems(CodeSet.HUMANEVAL)
BENCH = Bench(Limits(), capabilities().wall)
sandboxed = pytest.mark.skipif(BENCH.wall is Wall.LIMITS, reason="this machine has weak walls only")


def program(text: str, split_after: str, tests: str = "check(f)"):
    prompt, solution = text[: (at := text.index(split_after) + len(split_after))], text[at:]
    row = {"task_id": "T/0", "prompt": prompt, "entry_point": "f", "canonical_solution": solution, "test": tests}
    return parse_problems([row], CodeSet.HUMANEVAL, "rows")[0]


@sandboxed
@pytest.mark.parametrize(
    ("problems", "seeds"), [(HUMANEVAL[::41], 1), pytest.param(HUMANEVAL, 5, marks=pytest.mark.slow)]
)
def test_every_published_solution_still_passes(problems, seeds):
    everything = perturb_all(problems, seeds)
    variants = everything.all()
    for row in report_rows(everything, find_ceiling(variants, BENCH), None):
        assert row.ceiling.robust.mean == 1.0, row


@sandboxed
def test_half_a_solution_in_the_prompt_leaves_a_program_that_passes():
    halves = [split_solution(problem) for problem in HUMANEVAL[::16]]
    assert all(half.canonical.strip() for half in halves)
    assert [half.head + half.canonical for half in halves] == [p.head + p.canonical for p in HUMANEVAL[::16]]
    programs = [half.program(half.canonical) for half in halves]
    assert all(outcome.passed for outcome in run_known(programs, BENCH))


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda p: f"{p.family.label}-{p.name}")
def test_most_prompts_change_and_programs_stay_python(perturbation):
    problems = HUMANEVAL[::5]
    if perturbation.family.shows_code:
        problems = [split_solution(problem) for problem in problems]
    changed = 0
    for problem in problems:
        found = perturb_problem(problem, perturbation, 0)
        ast.parse(found.head + found.canonical)
        assert found.task_id == problem.task_id
        assert found.prompt == found.head
        changed += found.prompt != problem.prompt
    assert changed > len(problems) / 5


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda p: f"{p.family.label}-{p.name}")
def test_the_seed_alone_decides(perturbation):
    problems = [split_solution(p) for p in HUMANEVAL[:40]] if perturbation.family.shows_code else HUMANEVAL[:40]
    once, again, other = (
        [perturb_problem(problem, perturbation, seed).prompt for problem in problems] for seed in (0, 0, 1)
    )
    assert once == again
    assert (once != other) == perturbation.seeded


@pytest.mark.parametrize(
    "perturbation",
    [p for p in PERTURBATIONS if p.family in (Family.FORMAT, Family.SYNTAX)],
    ids=lambda p: p.name,
)
def test_layout_and_syntax_leave_the_docstring_to_its_readers(perturbation):
    if perturbation.name in ("tabs", "docstring_to_comments"):
        pytest.skip("these change the docstring's own layout")
    for problem in HUMANEVAL[:30]:
        half = split_solution(problem)
        found = perturb_problem(half, perturbation, 3)
        functions = [
            [
                ast.get_docstring(node)
                for node in ast.parse(p.head + p.canonical).body
                if isinstance(node, ast.FunctionDef)
            ]
            for p in (half, found)
        ]
        assert functions[0] == functions[1]


def test_docstring_errors_spare_examples_names_and_quotes():
    text = (
        'def f(number, items):\n    """ Sort the given items wherever number says "alpha beta" or gamma() does\n'
        "    >>> f(3, ['hello world'])\n    another result\n\n    finally return nothing sensible\n"
        '    """\n    return items\n'
    )
    problem = program(text, '    """\n    ')
    for perturbation in PERTURBATIONS:
        if perturbation.family is Family.DOCSTRINGS:
            for seed in range(30):
                found = perturb_problem(problem, perturbation, seed).prompt
                assert found != problem.prompt
                assert "    >>> f(3, ['hello world'])\n    another result\n" in found
                assert found.count("items") == 2
                assert found.count("number") == 2
                assert "gamma()" in found


def test_a_renamed_function_is_renamed_wherever_it_is_meant():
    text = 'def f(n):\n    """Add f(2), or add more: f(3)."""\n    return f(n - 1) if n else 0\n'
    problem = program(text, '"""\n', "def check(candidate):\n    assert f(1) == candidate(1)\n")
    rename = next(p for p in PERTURBATIONS if p.name == "butter_fingers" and p.family is Family.FUNCTION_NAMES)
    found = perturb_problem(problem, rename, 0)
    assert found.entry_point != "f"
    whole = f"{found.head}{found.canonical}{found.tests}"
    assert f"{found.entry_point}(" in whole
    assert "check(" + found.entry_point + ")" in whole
    assert not any(f" f{end}" in whole for end in "(),.")


def test_nothing_is_put_between_an_if_and_its_elif():
    text = (
        "def f(x):\n    if x:\n        y = 1\n    elif x is None:\n        y = 2\n"
        "    else:\n        y = 3\n    return y\n"
    )
    problem = program(text, "        y = 3\n")
    for name in ("dead_code", "blank_lines"):
        perturbation = next(p for p in PERTURBATIONS if p.name == name)
        for seed in range(20):
            found = perturb_problem(problem, perturbation, seed)
            lines = [line for line in (found.head + found.canonical).split("\n") if line.strip()]
            assert lines[lines.index("    elif x is None:") - 1] == "        y = 1"


def test_names_that_text_or_callers_know_are_not_exchanged():
    text = (
        "def f(a, b=1):\n    total = g(key=a)\n    other = [b for b in a]\n    print(f'{b}')\n"
        "    return sorted(other, key=lambda key: key + total)\n"
    )
    problem = program("def g(key):\n    return key\n\n" + text, "    other")
    numbered = next(p for p in PERTURBATIONS if p.name == "numbered_names")
    found = perturb_problem(problem, numbered, 0)
    source = found.head + found.canonical
    assert "g(key=VAR_0)" in source
    assert "b=1" in source
    assert "lambda key: key" in source
    assert "total" not in source


def test_a_loop_becomes_a_while_that_does_the_same():
    text = (
        "def f(xs):\n    found = []\n    for i, x in enumerate(xs):\n        if x < 0:\n            continue\n"
        "        if x > 9:\n            break\n        found.append(i)\n    return found\n"
    )
    problem = program(text, "found.append(i)\n", "def check(c):\n    assert c([1, -1, 2, 10, 3]) == [0, 2]\n")
    loops = next(p for p in PERTURBATIONS if p.name == "while_loops")
    found = perturb_problem(problem, loops, 0)
    assert "while True:" in found.prompt
    namespace: dict = {}
    exec(found.head + found.canonical, namespace)
    assert namespace["f"]([1, -1, 2, 10, 3]) == [0, 2]


def test_edits_at_the_border_go_to_the_prompt_and_broken_ones_are_dropped():
    problem = program("def f():\n    return 1\n", "def f():\n")
    border = len(problem.prompt)
    found = apply_edits(problem, [Edit(border, border, "    x = 1\n"), Edit(border + 4, border + 10, "return  ")])
    assert (found.prompt, found.canonical) == ("def f():\n    x = 1\n", "    return   1\n")
    assert apply_edits(problem, [Edit(0, 3, "fed")]) is problem


def test_prompts_that_are_no_code_are_refused():
    row = {"task_id": 11, "text": "t", "code": "c", "test_list": ["assert True"]}
    with pytest.raises(ProxyByteError, match="MBPP/11 cannot be perturbed"):
        perturb_all(parse_problems([row], CodeSet.MBPP, "rows"), 1)


def test_random_is_not_touched():
    state = random.getstate()
    perturb_all(HUMANEVAL[:3], 2)
    assert random.getstate() == state
