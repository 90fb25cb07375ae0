"""Perturbations as edits of a solved problem's source, so that prompt and solution stay parts of one program."""

import ast
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from proxybyte.eval.code.problems import Problem
from proxybyte.eval.robustness.variants import Family, find_function, line_offsets, statement_lines


@dataclass(frozen=True)
class Edit:
    """``source[start:end]`` becomes ``text``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Solved:
    """A problem as one program: its prompt, then its canonical solution.

    Attributes:
        source: the program.
        split: where the prompt ends in it.
        entry_point: the function asked for.
        tests: what is run after it.
    """

    source: str
    split: int
    entry_point: str
    tests: str

    @classmethod
    def of(cls, problem: Problem) -> "Solved":
        """From a problem whose prompt is code."""
        return cls(problem.head + problem.canonical, len(problem.head), problem.entry_point, problem.tests)

    @property
    def tree(self) -> ast.Module:
        """The program, parsed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # a docstring's stray backslash
            return ast.parse(self.source)

    @property
    def function(self) -> ast.FunctionDef | None:
        """The function asked for."""
        return find_function(self.tree, self.entry_point)

    def offset(self, line: int, column_bytes: int) -> int:
        """Where ``line`` (from 1) and a column as :mod:`ast` counts it (in UTF-8 bytes) are in the source."""
        start, end = line_offsets(self.source)[line - 1 : line + 1]
        return start + len(self.source[start:end].encode()[:column_bytes].decode())

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where ``node`` begins and ends in the source."""
        begin = self.offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]
        return begin, self.offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    @property
    def statement_starts(self) -> list[int]:
        """Where lines begin that begin a statement of the function, up to the end of the prompt."""
        offsets = line_offsets(self.source)
        starts = [offsets[line - 1] for line in statement_lines(self.source, self.entry_point)]
        return [start for start in starts if start <= self.split]

    @property
    def docstring(self) -> tuple[int, int] | None:
        """Where the literal of the function's docstring begins and ends."""
        function = self.function
        if function is None or ast.get_docstring(function, clean=False) is None:
            return None
        return self.span(function.body[0])


Perturb = Callable[[Solved, random.Random], Sequence[Edit]]
"""Edits that change how a problem looks and not what it asks; none where it finds nothing to change."""


@dataclass(frozen=True)
class Perturbation:
    """One way to change a prompt.

    Attributes:
        family: of ReCode's four.
        name: unique.
        perturb: the edits; renaming the function is told by ``renames``.
        seeded: whether another seed makes another change.
        renames: picks a new name for the function asked for, in place of ``perturb``.
    """

    family: Family
    name: str
    perturb: Perturb | None = None
    seeded: bool = True
    renames: Callable[[str, random.Random], str] | None = None


def apply_edits(problem: Problem, edits: Sequence[Edit]) -> Problem:
    """``problem`` with its program edited.

    An insertion exactly at the border of prompt and solution goes to the prompt. Where the result is no Python any
    more, the problem comes back as it was.
    """
    solved = Solved.of(problem)
    source, split = solved.source, solved.split
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        source = source[: edit.start] + edit.text + source[edit.end :]
        if edit.end <= solved.split:
            split += len(edit.text) - (edit.end - edit.start)
    try:
        if edits:
            replace(solved, source=source).tree  # noqa: B018 (parsing is the check)
    except SyntaxError:
        return problem
    return replace(problem, prompt=source[:split], head=source[:split], canonical=source[split:])
