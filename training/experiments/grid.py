"""From a plan to its cells: one training run each, with every key settled but those that depend on the data."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxybyte.errors import ProxyByteError, WrongOption

from ..run.config import TrainConfig
from ..run.config_io import parse_config
from .recorded import Settings, cell_settings
from .schema import ArmConfig, ArmKind, ExperimentPlan, ModelChoice, PairMode, lay_over, nested

_PAIRINGS = {
    PairMode.NONE: ("none", "none"),
    PairMode.WARMUP: ("random", "none"),
    PairMode.ALWAYS: ("random", "random"),
    PairMode.WARMUP_PARALLEL: ("parallel", "none"),
    PairMode.ALWAYS_PARALLEL: ("parallel", "parallel"),
}
"""Pairing during warm-up and in the steady phase."""
_ONE_VIEW = {"warmup": 0.0, "decay": 0.0, "hand_off": 0.0, "pairing": "none"}


@dataclass(frozen=True)
class Cell:
    """One run of a plan.

    Attributes:
        condition: what it shares with its other seeds; a row of the report.
        arm: name of its arm.
        kind: what it trains on.
        compressor: name of its compressor, ``None`` for bytes alone.
        model: name of its model.
        seed: of weights and data.
        axes: the values by which the conditions of an arm differ, by axis.
        budget: in the unit of the plan's match.
        config: the run; ``output``, ``data`` and ``plan.budget`` are settled when it starts.
        settings: all that the result depends on.
    """

    condition: str
    arm: str
    kind: ArmKind
    compressor: str | None
    model: str
    seed: int
    axes: dict[str, str]
    budget: float
    config: TrainConfig
    settings: Settings

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.condition}-seed{self.seed}"


def expand(plan: ExperimentPlan) -> list[Cell]:
    """All cells, seed by seed, so that an unfinished plan holds whole seeds.

    Raises:
        ProxyByteError: if a training key is unknown or has a wrong value, or two cells have one name.
    """
    cells = [
        cell
        for seed in plan.seeds
        for name, arm in plan.arms.items()
        for model in arm.models or plan.models
        for cell in _cells_of_arm(plan, name, arm, model, seed)
    ]
    names = [cell.name for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ProxyByteError(f"{plan.title}: two cells are called {twice}: name arms and models apart")
    return cells


def _cells_of_arm(plan: ExperimentPlan, name: str, arm: ArmConfig, model: str, seed: int) -> Iterator[Cell]:
    """The conditions of an arm with one model and one seed."""
    choice = plan.models[model]
    for point in _points(arm):
        axes = {axis: _spell(value) for axis, value in point.items() if _several(arm, axis)}
        words = [
            name,
            *(f"{axis}-{value}" if axis not in ("compressor", "pairing") else value for axis, value in axes.items()),
        ]
        words += [model] if len(plan.models) > 1 else []
        condition = "-".join(word.replace("/", "_").replace(" ", "") for word in words)
        config = _config(plan, arm, choice, point, seed, f"{plan.title}: arm {name}")
        compressor = point.get("compressor")
        budget = choice.budget or plan.match.budget
        yield Cell(
            condition=condition,
            arm=name,
            kind=arm.kind,
            compressor=compressor,
            model=model,
            seed=seed,
            axes=axes,
            budget=budget,
            config=config,
            settings=cell_settings(plan, arm.kind, config, compressor, budget),
        )


def _points(arm: ArmConfig) -> Iterator[dict[str, Any]]:
    """Every combination of an arm's values, by axis."""
    axes: dict[str, tuple[Any, ...]] = {}
    if arm.compressor:
        axes["compressor"] = arm.compressor
    if arm.kind is ArmKind.PROXY:
        axes |= {"raw_share": arm.raw_share, "pairing": arm.pairing}
    axes |= arm.vary
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _several(arm: ArmConfig, axis: str) -> bool:
    return len(arm.vary[axis] if axis in arm.vary else getattr(arm, axis)) > 1


def _spell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _config(
    plan: ExperimentPlan, arm: ArmConfig, model: ModelChoice, point: Mapping[str, Any], seed: int, origin: str
) -> TrainConfig:
    """The run of one combination. Later layers win: plan, model, what the arm is, what the arm sets."""
    chosen = {"preset": model.preset} if model.preset else {"backbone_config": model.backbone_config}
    varied = {axis: value for axis, value in point.items() if axis in arm.vary}
    values: dict[str, Any] = {"log": {"trackers": [], "plot": False}, "checkpoint": {"keep": 1}}
    for layer in (
        plan.train,
        {"model": chosen},
        nested(model.set),
        {"plan": {"schedule": _schedule(arm.kind, point)}},
        nested(arm.set),
        nested(varied),
        {"seed": seed, "plan": {"seed": seed}},
        {"output": Path("run"), "data": Path("data"), "evaluation": _evaluation(plan, arm.kind)},
    ):
        values = lay_over(values, layer)
    return parse_config(values, origin)


def _schedule(kind: ArmKind, point: Mapping[str, Any]) -> dict[str, Any]:
    if kind is ArmKind.BYTES:
        return {**_ONE_VIEW, "rate": 0.0}
    if kind is ArmKind.COMPRESSED:
        return {**_ONE_VIEW, "rate": 1.0}
    warmup_pairing, pairing = _PAIRINGS[point["pairing"]]
    return {"rate": 1.0 - point["raw_share"], "warmup_pairing": warmup_pairing, "pairing": pairing}


def _evaluation(plan: ExperimentPlan, kind: ArmKind) -> dict[str, Any]:
    views = ["compressed"] if kind is ArmKind.COMPRESSED else ["raw"]
    return {"documents": plan.evaluation.documents, "max_bytes": plan.evaluation.max_bytes, "views": views}


def choose_cells(cells: Sequence[Cell], which: str | None) -> list[Cell]:
    """Those of ``which``: ``i/n`` for every n-th from the i-th on (from 1), or one cell's name; ``None`` for all.

    Raises:
        ProxyByteError: if it is neither.
    """
    if which is None:
        return list(cells)
    named = [cell for cell in cells if cell.name == which]
    if named:
        return named
    share = re.fullmatch(r"(\d{1,9})/(\d{1,9})", which)
    if share is None or not 1 <= int(share[1]) <= int(share[2]):
        names = f"{cells[0].name} to {cells[-1].name}" if cells else "there are none"
        raise WrongOption(f"cells {which}: give i/n with i from 1 to n, or a cell's name ({names})", "cells")
    return list(cells[int(share[1]) - 1 :: int(share[2])])
