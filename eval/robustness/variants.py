"""A perturbed set of problems, and the unperturbed one that it is compared with.

The four families and the metrics are ReCode's (Wang et al. 2022, arXiv 2212.10264).
"""

import ast
from dataclasses import dataclass, replace
from enum import StrEnum

from proxybyte.eval.code.problems import Problem


class Family(StrEnum):
    """What is changed; the value is the folder's name in ReCode's release."""

    FORMAT = "format"
    FUNCTION_NAMES = "func_name"
    SYNTAX = "natgen"
    DOCSTRINGS = "nlaugmenter"

    @property
    def label(self) -> str:
        """For people."""
        return {"format": "format", "func_name": "names", "natgen": "syntax", "nlaugmenter": "docstrings"}[self.value]

    @property
    def shows_code(self) -> bool:
        """Whether prompts hold the first half of the solution, so that there is code to perturb."""
        return self in (Family.FORMAT, Family.SYNTAX)


@dataclass(frozen=True)
class Variant:
    """A set of problems under one perturbation and seed; ``perturbation`` is empty for an unperturbed one."""

    family: Family | None
    perturbation: str
    seed: int
    problems: tuple[Problem, ...]

    @property
    def name(self) -> str:
        """Unique, and fit for a file name."""
        return f"{self.family.label}-{self.perturbation}-s{self.seed}" if self.family else self.perturbation


@dataclass(frozen=True)
class RobustnessSet:
    """Everything that a model is asked.

    Attributes:
        nominal: the problems as published.
        partial: the same with the first half of the solution in the prompt.
        variants: their perturbations; each holds a subset of the same task ids.
    """

    nominal: Variant
    partial: Variant
    variants: tuple[Variant, ...]

    def baseline(self, family: Family) -> Variant:
        """What variants of ``family`` are compared with."""
        return self.partial if family.shows_code else self.nominal

    def all(self) -> list[Variant]:
        """The baselines that are needed, then the variants."""
        families = {variant.family for variant in self.variants if variant.family}
        baselines = [self.baseline(family) for family in Family if family in families]
        return [*dict.fromkeys(baselines), *self.variants]


def split_solution(problem: Problem) -> Problem:
    """``problem`` with the first half of its canonical solution moved into the prompt, cut between two statements."""
    source = problem.head + problem.canonical
    starts = [line for line in statement_lines(source, problem.entry_point) if line >= problem.head.count("\n") + 1]
    middle = (problem.head.count("\n") + 1 + source.rstrip("\n").count("\n") + 2) / 2
    line = min(starts, key=lambda start: abs(start - middle), default=problem.head.count("\n") + 1)
    cut = line_offsets(source)[line - 1]
    return replace(problem, prompt=source[:cut], head=source[:cut], canonical=source[cut:])


def statement_lines(source: str, entry_point: str) -> list[int]:
    """Numbers (from 1) of the lines on which a statement of function ``entry_point`` begins, its docstring left out.

    Only lines that begin with a statement count: not the second of two on a line, nor the body of a one-line ``if``,
    nor an ``elif``, which the parser calls a statement.
    """
    function = find_function(ast.parse(source), entry_point)
    if function is None:
        return []
    lines = source.split("\n")
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    found = {
        node.lineno
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.stmt)
        and not lines[node.lineno - 1][: node.col_offset].strip()
        and not lines[node.lineno - 1].lstrip().startswith("elif")
    }
    return sorted(found)


def find_function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """The last top-level function of that name."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[-1] if found else None


def line_offsets(source: str) -> list[int]:
    """Where each line begins in ``source``; as Python counts lines, ending at ``\\n``."""
    offsets = [0]
    for line in source.split("\n"):
        offsets.append(offsets[-1] + len(line) + 1)
    return offsets
