"""What a plan's finished cells say together: means over seeds, comparisons with the baseline, curves."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxybyte.errors import ProxyByteError

from .grid import Cell, expand
from .plan_io import PLAN_FILE, parse_plan
from .results import CellResult, TransferPoint, load_result
from .runner import cell_folder
from .schema import ArmKind, ExperimentPlan
from .statistics import Interval, PairedTest, holm, mean_interval, paired_test


@dataclass(frozen=True)
class Condition:
    """One row of the report: the finished seeds of one condition.

    Attributes:
        name: of the condition.
        cells: the finished cells in the order of the seeds.
        results: of each.
    """

    name: str
    cells: tuple[Cell, ...]
    results: tuple[CellResult, ...]

    @property
    def first(self) -> Cell:
        """A cell that stands for what all have in common."""
        return self.cells[0]

    @property
    def bits_per_byte(self) -> Interval:
        """The figure over seeds: raw bytes, or the compressed view where the arm reads nothing else."""
        return mean_interval([result.bits_per_byte for result in self.results])

    @property
    def compressed_bpb(self) -> float | None:
        """Mean over seeds in the compressed view; ``None`` where it was not scored."""
        values = [result.compressed_bpb for result in self.results if result.compressed_bpb is not None]
        return math.fsum(values) / len(values) if values else None

    def mean(self, figure: Callable[[CellResult], float]) -> float:
        """Mean of a figure over seeds."""
        return math.fsum(map(figure, self.results)) / len(self.results)


@dataclass(frozen=True)
class Comparison:
    """A condition beside the baseline with the same model, seed by seed.

    Attributes:
        condition: what is compared.
        baseline: what with.
        test: of the differences in bits per byte, ``condition - baseline``: below zero is better than the baseline.
        p_holm: the t test's p-value, corrected for all comparisons of the report.
    """

    condition: str
    baseline: str
    test: PairedTest
    p_holm: float


@dataclass(frozen=True)
class CurvePoint:
    """An evaluation during training, over the seeds of a condition."""

    flops: float
    text_bytes: float
    bits_per_byte: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        plan: what was asked for.
        conditions: those with a finished cell, in the order of the plan.
        comparisons: with the baseline, where it has a seed in common.
        unfinished: names of cells without a result.
    """

    plan: ExperimentPlan
    conditions: tuple[Condition, ...]
    comparisons: tuple[Comparison, ...]
    unfinished: tuple[str, ...]

    @property
    def several_models(self) -> bool:
        """Whether conditions differ in size, so that scaling can be shown."""
        return len({condition.first.model for condition in self.conditions}) > 1


def read_report(folder: Path) -> Report:
    """The report of a plan's folder.

    Raises:
        ProxyByteError: if the folder is none, a cell is of another version of the plan, or none is finished.
    """
    path = folder / PLAN_FILE
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ProxyByteError(f"{folder} is no experiment: it has no {PLAN_FILE} ('proxybyte experiment run')") from None
    except (OSError, ValueError) as error:
        raise ProxyByteError(f"{path} cannot be read: {error}") from error
    plan = parse_plan(values, str(path))
    cells = expand(plan)
    results = {cell.name: load_result(cell_folder(folder, cell), cell) for cell in cells}
    finished = {name: result for name, result in results.items() if result is not None}
    if not finished:
        raise ProxyByteError(f"no cell of {folder} is finished: run 'proxybyte experiment run' first")
    conditions = []
    for name in dict.fromkeys(cell.condition for cell in cells):
        chosen = [cell for cell in cells if cell.condition == name and cell.name in finished]
        if chosen:
            conditions.append(Condition(name, tuple(chosen), tuple(finished[cell.name] for cell in chosen)))
    return Report(
        plan=plan,
        conditions=tuple(conditions),
        comparisons=tuple(_compare(plan, conditions)),
        unfinished=tuple(name for name, result in results.items() if result is None),
    )


def curve(condition: Condition) -> list[CurvePoint]:
    """Evaluations during training, as far as every seed has them; means over seeds, point by point."""
    points = []
    for several in zip(*(result.curve for result in condition.results), strict=False):
        bits = [point.bits_per_byte for point in several]
        flops, text = ([getattr(point, name) for point in several] for name in ("flops", "text_bytes"))
        count = len(several)
        points.append(
            CurvePoint(math.fsum(flops) / count, math.fsum(text) / count, math.fsum(bits) / count, min(bits), max(bits))
        )
    return points


def transfer_curve(condition: Condition) -> list[TransferPoint]:
    """Whether the views meet, as far as every seed has evaluations of it; means over seeds, point by point."""
    points = []
    for several in zip(*(result.transfer for result in condition.results), strict=False):
        names = ("flops", "raw", "raw_given", "compressed", "compressed_given")
        means = (math.fsum(getattr(point, name) for point in several) / len(several) for name in names)
        points.append(TransferPoint(several[0].step, *means))
    return points


def view_of(condition: Condition) -> str:
    """In which view the figure of a condition is."""
    return "compressed" if condition.first.kind is ArmKind.COMPRESSED else "raw"


def _compare(plan: ExperimentPlan, conditions: Sequence[Condition]) -> list[Comparison]:
    baselines: dict[str, Condition] = {}
    for condition in conditions:
        if condition.first.arm == plan.baseline_arm:
            baselines.setdefault(condition.first.model, condition)
    found: list[tuple[str, str, PairedTest]] = []
    for condition in conditions:
        baseline = baselines.get(condition.first.model)
        if baseline is None or baseline is condition:
            continue
        ours, theirs = (
            {cell.seed: result.bits_per_byte for cell, result in zip(side.cells, side.results, strict=True)}
            for side in (condition, baseline)
        )
        seeds = sorted(ours.keys() & theirs.keys())
        if seeds:
            test = paired_test([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
            found.append((condition.name, baseline.name, test))
    corrected = holm([test.p for _, _, test in found])
    return [Comparison(*parts, p) for parts, p in zip(found, corrected, strict=True)]
