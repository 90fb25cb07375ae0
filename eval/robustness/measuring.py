"""What a model, or the published solutions, score on every variant of a set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxybyte.eval.code.judging import Bench, canonical_samples, run_known
from proxybyte.eval.code.pass_at_k import Estimate, estimate, pass_at_k
from proxybyte.eval.code.samples import Sample
from proxybyte.eval.robustness.variants import Family, RobustnessSet, Variant
from proxybyte.eval.sandbox import Trial

Passed = Mapping[str, np.ndarray]
"""By a variant's name: which samples passed, booleans of shape ``(P, n)``, problems in the variant's order."""


@dataclass(frozen=True)
class Robustness:
    """How much is left of a score in the worst case.

    Attributes:
        nominal: pass@k of the unperturbed prompts.
        robust: RP_s@k, pass@k where a sample counts as right only if it is right under every seed.
        drop: RD_s@k, ``(nominal - robust) / nominal``; NaN where ``nominal`` is 0.
        relative: RR_s@k as ReCode's released code counts it: the share of answers that any seed turns, to wrong or to
            right. The worst case alone cannot see an answer that some seeds put right and others do not.
        change: the share of answers that the worst case turns.
    """

    nominal: Estimate
    robust: Estimate
    drop: float
    relative: float
    change: float


def robustness(nominal: np.ndarray, perturbed: np.ndarray, k: int = 1) -> Robustness:
    """The metrics from which samples passed.

    With ``w_i(x) = min over seeds of c(f_i(x_s))``, ``b_i(x) = max over seeds``, ``rc(x) = sum_i w_i(x)``, ``rc-(x)``
    the number of samples ``i`` whose nominal verdict is not ``w_i``, ``rc+(x)`` of those where it is, but not ``b_i``
    (``report_results_coarse`` in run_robust.py of amazon-science/recode at d49f2a5)::

        RP_s@k = E_x[pass@k(n, rc(x))]      RD_s@k = (pass@k - RP_s@k) / pass@k
        RR_s@k = E_x[pass@k(n, rc-(x)) + pass@k(n, rc+(x))]

    ``change`` has in their place the numbers of samples that fall from right to wrong, and rise from wrong to right,
    between nominal and worst; an earlier revision of their code (04097bc) reported that, for one sample a problem.

    Args:
        nominal: booleans of shape ``(P, n)``: problem, sample.
        perturbed: booleans of shape ``(S, P, n)``: seed (or any other variant), problem, sample.
        k: of pass@k.
    """
    worst, best = perturbed.all(axis=0), perturbed.any(axis=0)
    drawn = np.full(len(nominal), nominal.shape[1])

    def drawn_from(chosen: Any) -> np.ndarray:
        return pass_at_k(drawn, chosen.sum(axis=1), k)

    at_first, at_worst = estimate(drawn_from(nominal)), estimate(drawn_from(worst))
    relative = drawn_from(nominal != worst) + drawn_from((nominal == worst) & (nominal != best))
    change = drawn_from(nominal & ~worst) + drawn_from(~nominal & worst)
    drop = (at_first.mean - at_worst.mean) / at_first.mean if at_first.mean else float("nan")
    return Robustness(at_first, at_worst, drop, float(relative.mean()), float(change.mean()))


@dataclass(frozen=True)
class Row:
    """A line of the report.

    Attributes:
        family: of the perturbations.
        perturbation: its name; empty for the worst case over the family.
        variants: how many seeds (and perturbations) the worst case is taken over.
        changed: the mean number of problems whose prompt really differs.
        model: the model's figures; ``None`` where only the ceiling was asked for.
        ceiling: the published solutions' figures.
    """

    family: Family
    perturbation: str
    variants: int
    changed: float
    model: Robustness | None
    ceiling: Robustness


def find_passed(
    variants: Sequence[Variant], samples: Mapping[str, Sequence[Sample]], per_problem: int, bench: Bench
) -> Passed:
    """Run the samples of every variant; ``samples`` by the variant's name, ``per_problem`` of each problem in order."""
    programs: list[Trial | str] = []
    for variant in variants:
        by_id = {problem.task_id: problem for problem in variant.problems}
        programs += [by_id[sample.task_id].trial(sample.completion) for sample in samples[variant.name]]
    outcomes = iter(run_known(programs, bench))
    passed = {}
    for variant in variants:
        found = [next(outcomes).passed for _ in samples[variant.name]]
        passed[variant.name] = np.array(found, dtype=bool).reshape(len(variant.problems), per_problem)
    return passed


def find_ceiling(variants: Sequence[Variant], bench: Bench) -> Passed:
    """Run the published solution of every problem of every variant, ``n`` of 1."""
    return find_passed(variants, {variant.name: canonical_samples(variant.problems) for variant in variants}, 1, bench)


def report_rows(problems: RobustnessSet, ceiling: Passed, model: Passed | None, k: int = 1) -> list[Row]:
    """One row a perturbation, then one a family, worst case over all its perturbations and seeds."""
    rows = []
    for family in Family:
        members = [variant for variant in problems.variants if variant.family is family]
        names = list(dict.fromkeys(variant.perturbation for variant in members))
        groups = {name: [variant for variant in members if variant.perturbation == name] for name in names}
        if len(groups) > 1:
            groups[""] = members
        rows += [_row(name, group, problems.baseline(family), (ceiling, model), k) for name, group in groups.items()]
    return rows


def _row(name: str, group: Sequence[Variant], baseline: Variant, passed: tuple[Passed, Passed | None], k: int) -> Row:
    shared = set.intersection(*({problem.task_id for problem in variant.problems} for variant in [baseline, *group]))
    before = {problem.task_id: problem.prompt for problem in baseline.problems}
    changed = [sum(problem.prompt != before.get(problem.task_id) for problem in v.problems) for v in group]

    def pick(variant: Variant, found: Passed) -> np.ndarray:
        places = {problem.task_id: place for place, problem in enumerate(variant.problems)}
        return found[variant.name][[places[task_id] for task_id in sorted(shared)]]

    def figures(found: Passed, at: int) -> Robustness:
        return robustness(pick(baseline, found), np.stack([pick(variant, found) for variant in group]), at)

    ceiling, model = passed
    family = group[0].family
    assert family is not None
    return Row(
        family=family,
        perturbation=name,
        variants=len(group),
        changed=float(np.mean(changed)),
        model=None if model is None else figures(model, k),
        ceiling=figures(ceiling, 1),
    )


def rows_as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For the results file; NaN, which JSON has not, as null."""
    return [
        {
            "family": row.family.label,
            "perturbation": row.perturbation or "worst of all",
            "variants": row.variants,
            "changed": row.changed,
            "model": _figures(row.model),
            "ceiling": _figures(row.ceiling),
        }
        for row in rows
    ]


def _figures(found: Robustness | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "nominal": vars(found.nominal),
        "robust_pass": vars(found.robust),
        "robust_drop": None if np.isnan(found.drop) else found.drop,
        "robust_relative": found.relative,
        "worst_case_change": found.change,
    }


def rows_as_table(rows: Sequence[Row], k: int = 1) -> str:
    """For people."""
    head = f"{'family':<11}{'perturbation':<32}{'seeds':>6}{'changed':>9}"
    if rows and rows[0].model is not None:
        head += f"{f'pass@{k}':>9}{'robust':>9}{'drop':>8}{'relative':>10}{'change':>8}"
    lines = [head + f"{'ceiling':>9}"]
    for row in rows:
        line = f"{row.family.label:<11}{row.perturbation or 'worst of all':<32}{row.variants:>6}{row.changed:>9.1f}"
        if row.model is not None:
            drop = "-" if np.isnan(row.model.drop) else f"{row.model.drop:.1%}"
            line += f"{row.model.nominal.mean:>9.1%}{row.model.robust.mean:>9.1%}{drop:>8}"
            line += f"{row.model.relative:>10.1%}{row.model.change:>8.1%}"
        lines.append(line + f"{row.ceiling.robust.mean:>9.1%}")
    return "\n".join(lines)
