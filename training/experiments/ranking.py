"""Arms beside the baseline, each at the learning rate that suits it: what ``arms.json`` holds."""

import math
from collections.abc import Sequence
from typing import Any

from .report import Condition, Report
from .statistics import LEAST_FOR_AN_INTERVAL, paired_test

_TRIED = "optimizer.lr"
"""The axis whose values are trials of one arm, and no arms of their own."""


def ranking(report: Report) -> dict[str, Any]:
    """``{"arms": {name: {"bpb": [...], "minus_bytes": [low, high]}}, "symbols_per_weight": n}``.

    Of the learning rates that an arm tried, the one counts with the lowest bits per byte of the seed that all of them
    have, so that every arm is chosen by the same rule. ``bpb`` is in the order of ``seeds``; ``minus_bytes`` is the 95%
    interval of the differences from the baseline, paired by seed, ``None`` where fewer than three seeds are in both;
    the baseline has none. ``symbols_per_weight`` is the least of all arms, of weights beside embedding and head.
    """
    arms: dict[str, list[Condition]] = {}
    for condition in report.conditions:
        arms.setdefault(_arm_name(condition), []).append(condition)
    chosen = {name: best_trial(trials) for name, trials in arms.items()}
    baseline = next((c for c in chosen.values() if c.first.arm == report.plan.baseline_arm), None)
    told: dict[str, Any] = {}
    for name, condition in chosen.items():
        entry: dict[str, Any] = {
            "bpb": [result.bits_per_byte for result in condition.results],
            "seeds": [cell.seed for cell in condition.cells],
            "condition": condition.name,
        }
        if baseline is not None and condition is not baseline:
            entry["minus_bytes"] = _minus(condition, baseline)
        told[name] = entry
    fewest = min(r.symbols / r.backbone_parameters for c in chosen.values() for r in c.results)
    return {"arms": told, "symbols_per_weight": fewest}


def best_trial(trials: Sequence[Condition]) -> Condition:
    """The condition with the lowest figure on the first seed that all trials have; of seeds apart, by their means."""
    shared = set.intersection(*({cell.seed for cell in trial.cells} for trial in trials))
    if not shared:
        return min(trials, key=lambda trial: trial.bits_per_byte.mean)
    return min(trials, key=lambda trial: _by_seed(trial)[min(shared)])


def _by_seed(condition: Condition) -> dict[int, float]:
    return {cell.seed: r.bits_per_byte for cell, r in zip(condition.cells, condition.results, strict=True)}


def _arm_name(condition: Condition) -> str:
    cell = condition.first
    axes = [f"{axis}-{value}" for axis, value in cell.axes.items() if axis != _TRIED]
    return "-".join([cell.arm, *axes, cell.model])


def _minus(condition: Condition, baseline: Condition) -> list[float] | None:
    ours, theirs = _by_seed(condition), _by_seed(baseline)
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < LEAST_FOR_AN_INTERVAL:
        return None
    interval = paired_test([ours[s] for s in seeds], [theirs[s] for s in seeds]).difference
    return [interval.low, interval.high] if math.isfinite(interval.low) else None
