"""The built-in perturbations of the four families, over any set of HumanEval's form."""

import random
from collections.abc import Sequence

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.problems import Problem
from proxybyte.eval.robustness.docstrings import DOCSTRINGS
from proxybyte.eval.robustness.edits import Perturbation, Solved, apply_edits
from proxybyte.eval.robustness.layout import FORMATS
from proxybyte.eval.robustness.names import NAMES, rename_function
from proxybyte.eval.robustness.syntax import SYNTAX
from proxybyte.eval.robustness.variants import RobustnessSet, Variant, split_solution

PERTURBATIONS: tuple[Perturbation, ...] = (*FORMATS, *NAMES, *SYNTAX, *DOCSTRINGS)


def perturb_all(problems: Sequence[Problem], seeds: int) -> RobustnessSet:
    """Every built-in perturbation of ``problems`` under seeds ``0 .. seeds - 1`` (one, where it draws nothing).

    A problem in which a perturbation finds nothing to change stays as it is. The same arguments give the same prompts
    on every machine.

    Raises:
        ProxyByteError: if a problem is not code with a named function and a solution.
    """
    for problem in problems:
        if not problem.entry_point or problem.prompt != problem.head:
            raise ProxyByteError(
                f"{problem.task_id} cannot be perturbed: its prompt is no beginning of a function (sets of HumanEval's "
                "form can be)"
            )
    partial = tuple(split_solution(problem) for problem in problems)
    return RobustnessSet(
        nominal=Variant(None, "nominal", 0, tuple(problems)),
        partial=Variant(None, "nominal-partial", 0, partial),
        variants=tuple(
            Variant(
                perturbation.family,
                perturbation.name,
                seed,
                tuple(
                    perturb_problem(problem, perturbation, seed)
                    for problem in (partial if perturbation.family.shows_code else problems)
                ),
            )
            for perturbation in PERTURBATIONS
            for seed in range(seeds if perturbation.seeded else 1)
        ),
    )


def perturb_problem(problem: Problem, perturbation: Perturbation, seed: int) -> Problem:
    """One problem under one perturbation."""
    rng = random.Random(f"{perturbation.name}/{problem.task_id}/{seed}")
    if perturbation.perturb is None:
        return rename_function(problem, perturbation, rng)
    return apply_edits(problem, perturbation.perturb(Solved.of(problem), rng))
