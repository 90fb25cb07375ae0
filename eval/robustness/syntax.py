"""The same computation written differently: other local names, dead code, comparisons turned round, while for for."""

import ast
import builtins
import random
import string
from collections.abc import Callable, Iterator

from proxybyte.eval.robustness.edits import Edit, Perturbation, Solved
from proxybyte.eval.robustness.variants import Family

_TURNED = {ast.Lt: ">", ast.Gt: "<", ast.LtE: ">=", ast.GtE: "<=", ast.Eq: "==", ast.NotEq: "!="}
_PLAIN = (ast.Name, ast.Constant)


def _local_names(solved: Solved, function: ast.FunctionDef) -> list[str]:
    """Names that the function binds and that may be exchanged throughout it, in order of first use.

    Exchanging every occurrence of a name for a fresh one keeps all bindings, nested functions included. Left alone:
    names that the rest of the program knows, keyword arguments, names inside f-strings (whose positions Python before
    3.12 does not tell), and everything where the function looks names up by text.
    """
    nodes = list(ast.walk(function))
    bound = [node.arg for node in nodes if isinstance(node, ast.arg)]
    bound += [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    kept = {node.arg for node in nodes if isinstance(node, ast.keyword)}
    kept |= {name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    in_text = [node for text in nodes if isinstance(text, ast.JoinedStr) for node in ast.walk(text)]
    kept |= {node.id for node in in_text if isinstance(node, ast.Name)}
    kept |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler | ast.FunctionDef) and node.name}
    outside = [node for statement in solved.tree.body for node in ast.walk(statement)]
    kept |= {node.name for node in outside if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    kept |= {
        (a.asname or a.name).split(".")[0]
        for n in outside
        if isinstance(n, ast.Import | ast.ImportFrom)
        for a in n.names
    }
    kept |= set(dir(builtins))
    if any(isinstance(node, ast.Name) and node.id in ("locals", "eval", "exec", "vars") for node in nodes):
        return []
    return [name for name in dict.fromkeys(bound) if name not in kept]


def _exchange(pick: Callable[[int, random.Random], str]) -> Callable[[Solved, random.Random], list[Edit]]:
    def perturb(solved: Solved, rng: random.Random) -> list[Edit]:
        function = solved.function
        if function is None:
            return []
        fresh: dict[str, str] = {}
        for number, name in enumerate(_local_names(solved, function)):
            new = pick(number, rng)
            if new not in solved.source and new not in solved.tests and new not in fresh.values():
                fresh[name] = new
        edits = []
        for node in ast.walk(function):
            name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""
            if name in fresh:
                start, _ = solved.span(node)
                edits.append(Edit(start, start + len(name), fresh[name]))
        return edits

    return perturb


def _numbered(number: int, _rng: random.Random) -> str:
    return f"VAR_{number}"


def _random_name(_number: int, rng: random.Random) -> str:
    return "".join(rng.choice(string.ascii_letters) for _ in range(rng.randint(4, 8)))


def _dead_code(solved: Solved, rng: random.Random) -> list[Edit]:
    """A block that never runs, before a statement of the function."""
    starts = solved.statement_starts
    if not starts:
        return []
    start = rng.choice(starts)
    line = solved.source[start:].split("\n", 1)[0]
    indent = line[: len(line) - len(line.lstrip())]
    head, body = rng.choice([("if False", "pass"), ("while False", "break"), ("for _ in ()", "continue")])
    return [Edit(start, start, f"{indent}{head}:\n{indent}    {body}\n")]


def _is_plain(node: ast.expr) -> bool:
    """Whether evaluating ``node`` can neither change anything nor depend on when it happens."""
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and node.func.id == "len"
        return named and len(node.args) == 1 and isinstance(node.args[0], ast.Name)
    return isinstance(node, _PLAIN)


def _turned_comparisons(solved: Solved, _rng: random.Random) -> list[Edit]:
    """``a < b`` becomes ``b > a``, where both sides are plain."""
    edits = []
    for node in ast.walk(solved.function or ast.Module([], [])):
        if isinstance(node, ast.JoinedStr):
            return []  # Python before 3.12 does not tell positions inside
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _TURNED:
            left, right = node.left, node.comparators[0]
            start, end = solved.span(node)
            if _is_plain(left) and _is_plain(right) and "\n" not in solved.source[start:end]:
                (a, b), (c, d) = solved.span(left), solved.span(right)
                if (a, d) == (start, end):
                    turned = f"{solved.source[c:d]} {_TURNED[type(node.ops[0])]} {solved.source[a:b]}"
                    edits.append(Edit(start, end, turned))
    return edits


def _loops(solved: Solved) -> Iterator[ast.For]:
    lines = solved.source.split("\n")
    for node in ast.walk(solved.function or ast.Module([], [])):
        if isinstance(node, ast.For) and not node.orelse and node.body[0].lineno > node.iter.end_lineno:  # type: ignore[operator]
            alone = not lines[node.lineno - 1][: node.col_offset].strip()
            if alone and solved.offset(node.body[0].lineno, 0) <= solved.split:
                yield node


def _while_loops(solved: Solved, _rng: random.Random) -> list[Edit]:
    """``for x in xs:`` becomes a ``while`` over the iterator; ``break`` and ``continue`` mean the same in it."""
    edits = []
    for number, loop in enumerate(_loops(solved)):
        outer, inner = " " * loop.col_offset, " " * loop.body[0].col_offset
        items = f"items_{number}"
        target, values = (solved.source[slice(*solved.span(node))] for node in (loop.target, loop.iter))
        start, body = solved.offset(loop.lineno, 0), solved.offset(loop.body[0].lineno, 0)
        header = (
            f"{outer}{items} = iter({values})\n{outer}while True:\n{inner}try:\n{inner}    {target} = next({items})\n"
            f"{inner}except StopIteration:\n{inner}    break\n"
        )
        if items not in solved.source and "#" not in solved.source[start:body]:
            edits.append(Edit(start, body, header))
    return edits


SYNTAX = (
    Perturbation(Family.SYNTAX, "numbered_names", _exchange(_numbered), seeded=False),
    Perturbation(Family.SYNTAX, "random_names", _exchange(_random_name)),
    Perturbation(Family.SYNTAX, "dead_code", _dead_code),
    Perturbation(Family.SYNTAX, "turned_comparisons", _turned_comparisons, seeded=False),
    Perturbation(Family.SYNTAX, "while_loops", _while_loops, seeded=False),
)
