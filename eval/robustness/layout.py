"""The same program laid out differently: indentation, empty lines, comments for a docstring, broken lines."""

import ast
import io
import random
import tokenize
from collections.abc import Iterator
from itertools import pairwise

from proxybyte.eval.robustness.edits import Edit, Perturbation, Solved
from proxybyte.eval.robustness.variants import Family, line_offsets

_WIDTH = 4


def _tokens(solved: Solved) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(solved.source).readline))


def _tabs(solved: Solved, _rng: random.Random) -> list[Edit]:
    """A tab for every four spaces of indentation; inside strings only where they are docstrings."""
    docstrings = {
        node.body[0].lineno
        for node in ast.walk(solved.tree)
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None
    }
    inside = {
        line
        for token in _tokens(solved)
        if token.type == tokenize.STRING and token.start[0] not in docstrings
        for line in range(token.start[0] + 1, token.end[0] + 1)
    }
    edits = []
    for number, start in enumerate(line_offsets(solved.source)[:-1], start=1):
        line = solved.source[start:].split("\n", 1)[0]
        spaces = len(line) - len(line.lstrip(" "))
        if number not in inside and spaces >= _WIDTH:
            edits.append(Edit(start, start + spaces, "\t" * (spaces // _WIDTH) + " " * (spaces % _WIDTH)))
    return edits


def _blank_lines(solved: Solved, rng: random.Random) -> list[Edit]:
    starts = solved.statement_starts
    picked = rng.sample(starts, min(len(starts), max(1, len(starts) // 3)))
    return [Edit(start, start, "\n" * rng.randint(1, 2)) for start in picked]


def _blank_after_docstring(solved: Solved, _rng: random.Random) -> list[Edit]:
    span = solved.docstring
    return [] if span is None else [Edit(span[1], span[1], "\n")]


def _blank_at_end(solved: Solved, _rng: random.Random) -> list[Edit]:
    return [Edit(solved.split, solved.split, "\n")]


def _comments(solved: Solved, _rng: random.Random) -> list[Edit]:
    """The docstring's text as comment lines, where the function has more to it than its docstring."""
    span, function = solved.docstring, solved.function
    if span is None or function is None or len(function.body) < 2:
        return []
    text = ast.literal_eval(solved.source[span[0] : span[1]])
    indent = " " * function.body[0].col_offset
    lines = [line.removeprefix(indent).rstrip() for line in text.strip().split("\n")]
    comments = [f"# {line}".rstrip() for line in lines]
    return [Edit(span[0], span[1], f"\n{indent}".join(comments))]


def _commas(solved: Solved) -> Iterator[tuple[int, int]]:
    """Inside brackets of the prompt: where a comma ends, and where what follows it on its line begins."""
    depth = 0
    tokens = _tokens(solved)
    offsets = line_offsets(solved.source)
    for token, after in pairwise(tokens):
        depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
        if token.string == "," and depth and after.start[0] == token.end[0] and after.type != tokenize.NL:
            comma, rest = offsets[token.end[0] - 1] + token.end[1], offsets[after.start[0] - 1] + after.start[1]
            if rest <= solved.split:
                yield comma, rest


def _broken_lines(solved: Solved, rng: random.Random) -> list[Edit]:
    """A line break after a comma inside brackets, where Python ignores it."""
    commas = list(_commas(solved))
    return [Edit(comma, rest, "\n" + " " * 8) for comma, rest in rng.sample(commas, min(len(commas), 2))]


FORMATS = (
    Perturbation(Family.FORMAT, "tabs", _tabs, seeded=False),
    Perturbation(Family.FORMAT, "docstring_to_comments", _comments, seeded=False),
    Perturbation(Family.FORMAT, "blank_after_docstring", _blank_after_docstring, seeded=False),
    Perturbation(Family.FORMAT, "blank_at_end", _blank_at_end, seeded=False),
    Perturbation(Family.FORMAT, "blank_lines", _blank_lines),
    Perturbation(Family.FORMAT, "broken_lines", _broken_lines),
)
