"""What a plan's finished cells say together: means over seeds, comparisons with the baseline, curves."""

import base64
import html
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_bytes, write_text

from ..drawn_text import distinct_colours
from .grid import Cell, expand
from .noise_report import noise_json, noise_picture, noise_rows
from .results import CellResult, load_result
from .runner import cell_folder
from .schema import PLAN_FILE, ArmKind, ExperimentPlan, MatchBy, parse_plan
from .statistics import LEAST_FOR_AN_INTERVAL, Interval, PairedTest, holm, mean_interval, paired_test
from .views_meet import draw_transfer, transfer_curve


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
    def results(self) -> dict[str, tuple[CellResult, ...]]:
        """Of each condition's finished seeds, by its name."""
        return {condition.name: condition.results for condition in self.conditions}

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


_CAPTIONS = {
    "seeds": "Bits per byte of the held-out documents, each seed and the mean",
    "flops": "Bits per byte while training, against training FLOPs",
    "bytes": "Bits per byte while training, against bytes of text shown",
    "scaling": "Bits per byte against the size of the model",
    "noise": "Bits per byte against the share of noised characters; dotted: where a condition crosses the first",
    "transfer": "Bits a byte that the other view in the context saves while training, in both directions",
}
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;border-bottom:1px solid #ccc;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}figure{margin:2rem 0}"""


@dataclass(frozen=True)
class Table:
    """A table of the report: a title, what its columns mean, a head and rows of text."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_report(report: Report, folder: Path) -> Path:
    """Write ``report.md``, ``report.json``, ``report.html`` and the pictures into ``folder``; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_report(report)
    for name, picture in pictures.items():
        write_bytes(folder / f"{name}.png", picture)
    write_text(folder / "report.md", as_markdown(report, list(pictures)))
    write_text(folder / "report.json", json.dumps(as_json(report), indent=1))
    write_text(folder / "report.html", as_html(report, pictures))
    return folder / "report.html"


def tables(report: Report) -> list[Table]:
    """The tables of the report."""
    found = [_means(report), _costs(report)]
    if report.comparisons:
        found.insert(1, _paired(report))
    if report.plan.evaluation.noise is not None:
        head, rows = noise_rows(report.results)
        note = "BPB of the noised text, in the view named above; where mean curves cross, and in brackets each seed's."
        found.append(Table("Noised text", note, head, rows))
    return found


def as_markdown(report: Report, pictures: Sequence[str] = ()) -> str:
    """The report as Markdown; ``pictures`` lie beside it as ``NAME.png``."""
    parts = [f"# {report.plan.title}", *_lead(report)]
    for table in tables(report):
        rule = ("---", *("---:" for _ in table.head[1:]))
        lines = [f"| {' | '.join(cells)} |" for cells in (table.head, rule, *table.rows)]
        parts += [f"## {table.title}", "\n".join(lines), table.note]
    parts += [f"![{_CAPTIONS[name]}]({name}.png)" for name in pictures]
    return "\n\n".join(parts) + "\n"


def as_html(report: Report, pictures: dict[str, bytes]) -> str:
    """The report as one page, pictures inside."""
    title = html.escape(report.plan.title)
    parts = [f"<h1>{title}</h1>", *(f"<p>{html.escape(text)}</p>" for text in _lead(report))]
    for table in tables(report):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
        parts.append(f"<h2>{html.escape(table.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>")
        parts.append(f"</table><p>{html.escape(table.note)}</p>")
    for name, picture in pictures.items():
        data = base64.b64encode(picture).decode("ascii")
        caption = html.escape(_CAPTIONS[name])
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def as_json(report: Report) -> dict[str, Any]:
    """Everything, figures of every cell among it; numbers that are not finite are null."""
    values = {
        "plan": report.plan.model_dump(mode="json"),
        "conditions": [
            {
                "name": condition.name,
                "arm": condition.first.arm,
                "kind": condition.first.kind.value,
                "compressor": condition.first.compressor,
                "model": condition.first.model,
                "axes": condition.first.axes,
                "view": view_of(condition),
                "bits_per_byte": asdict(condition.bits_per_byte),
                "curve": [asdict(point) for point in curve(condition)],
                "transfer": [asdict(point) for point in transfer_curve(condition.results)],
            }
            for condition in report.conditions
        ],
        "noise": noise_json(report.results),
        "comparisons": [asdict(comparison) for comparison in report.comparisons],
        "cells": [
            {"seed": cell.seed, **{k: v for k, v in asdict(result).items() if k != "settings"}}
            for condition in report.conditions
            for cell, result in zip(condition.cells, condition.results, strict=True)
        ],
        "unfinished": list(report.unfinished),
    }
    return _finite(values)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lead(report: Report) -> list[str]:
    """Paragraphs before the tables."""
    plan = report.plan
    seeds = ", ".join(map(str, plan.seeds))
    machines = sorted({result.machine for condition in report.conditions for result in condition.results})
    lead = [plan.question] if plan.question else []
    lead.append(f"Matched by {plan.match.by}, {plan.match.budget:.3g} each; seeds {seeds}; on {'; '.join(machines)}.")
    steps = {condition.name: condition.mean(lambda r: r.steps) for condition in report.conditions}
    fewest, most = min(steps, key=steps.__getitem__), max(steps, key=steps.__getitem__)
    if plan.match.by is MatchBy.FLOPS and steps[most] >= 1.5 * steps[fewest]:
        lead.append(
            f"Equal FLOPs are not equal steps: {most} takes {steps[most]:,.0f} optimizer steps and {fewest} "
            f"{steps[fewest]:,.0f}, because their symbols cost differently. Fewer updates are part of what differs."
        )
    if report.unfinished:
        lead.append(f"{len(report.unfinished)} cells are not finished: {', '.join(report.unfinished)}.")
    return lead


def _means(report: Report) -> Table:
    rows = []
    for condition in report.conditions:
        interval = condition.bits_per_byte
        values = [result.bits_per_byte for result in condition.results]
        compressed = condition.compressed_bpb
        rows.append(
            (
                condition.name,
                view_of(condition),
                str(interval.n),
                f"{interval.mean:.4f}",
                _interval(interval),
                f"{min(values):.4f} to {max(values):.4f}",
                "-" if compressed is None else f"{compressed:.4f}",
            )
        )
    note = (
        "BPB: bits per byte of held-out documents, in the view named; interval: Student's t over seeds, 95%; "
        "compressed: BPB of the same documents and model in the compressed view."
    )
    head = ("condition", "view", "seeds", "BPB", "95% interval", "lowest to highest", "compressed")
    return Table("Bits per byte", note, head, tuple(rows))


def _paired(report: Report) -> Table:
    rows = [
        (
            comparison.condition,
            comparison.baseline,
            str(comparison.test.difference.n),
            f"{comparison.test.difference.mean:+.4f}",
            _interval(comparison.test.difference, sign=True),
            _p(comparison.test.p),
            _p(comparison.p_holm),
            _p(comparison.test.p_sign_flip),
        )
        for comparison in report.comparisons
    ]
    note = (
        "Difference: mean over seeds of condition minus baseline, negative is better than the baseline; p: paired t "
        "test; Holm: corrected for the number of comparisons; sign flip: exact test without a distribution, which "
        "three seeds cannot bring below 0.25."
    )
    head = ("condition", "baseline", "pairs", "difference", "95% interval", "p", "Holm", "sign flip")
    return Table("Paired over seeds", note, head, tuple(rows))


def _costs(report: Report) -> Table:
    rows = tuple(_cost(condition) for condition in report.conditions)
    note = "Means over seeds; text in MB (10^6 bytes) shown in each view; backbone: weights beside embedding and head."
    head = ("condition", "parameters", "backbone", "steps", "FLOPs", "symbols", "raw MB", "compressed MB", "minutes")
    return Table("What each cost", note, head, rows)


def _cost(condition: Condition) -> tuple[str, ...]:
    result = condition.results[0]
    return (
        condition.name,
        f"{result.parameters:,}",
        f"{result.backbone_parameters:,}",
        f"{condition.mean(lambda r: r.steps):,.0f}",
        f"{condition.mean(lambda r: r.flops):.3g}",
        f"{condition.mean(lambda r: r.symbols):,.0f}",
        f"{condition.mean(lambda r: r.raw_bytes) / 1e6:.2f}",
        f"{condition.mean(lambda r: r.compressed_bytes) / 1e6:.2f}",
        f"{condition.mean(lambda r: r.seconds) / 60:.1f}",
    )


def _interval(interval: Interval, sign: bool = False) -> str:
    if interval.n < LEAST_FOR_AN_INTERVAL:
        return f"{interval.n} seed{'s' if interval.n > 1 else ''}: no interval"
    return f"{interval.low:+.4f} to {interval.high:+.4f}" if sign else f"{interval.low:.4f} to {interval.high:.4f}"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


_MARKERS = "osD^v<>Ph*"


def draw_report(report: Report) -> dict[str, bytes]:
    """PNG files by name without suffix: ``seeds``, ``flops``, ``bytes``, and ``scaling`` where sizes differ."""
    pictures = {
        "seeds": _figure(report, _seeds),
        "flops": _figure(report, lambda axes, report: _curves(axes, report, "training FLOPs", lambda p: p.flops)),
        "bytes": _figure(report, lambda axes, report: _curves(axes, report, "bytes of text", lambda p: p.text_bytes)),
    }
    if report.several_models:
        pictures["scaling"] = _figure(report, _scaling)
    met = {condition.name: transfer_curve(condition.results) for condition in report.conditions}
    if any(met.values()):
        pictures["transfer"] = _figure(report, lambda axes, report: draw_transfer(axes, report.plan.title, met))
    if report.plan.evaluation.noise is not None:
        pictures["noise"] = noise_picture(report.results)
    return pictures


def _figure(report: Report, draw: Callable[[Axes, Report], None]) -> bytes:
    figure = Figure(figsize=(8.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw(axes, report)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        # Beside the axes: lines of a dozen conditions leave no room between them.
        figure.legend(loc="outside right upper", fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _seeds(axes: Axes, report: Report) -> None:
    """The final figure of each cell, and the mean of each condition."""
    palette = distinct_colours(len(report.conditions))
    for place, condition in enumerate(report.conditions):
        values = [result.bits_per_byte for result in condition.results]
        axes.plot(values, [place] * len(values), "o", color=palette[place], alpha=0.6)
        axes.plot([sum(values) / len(values)], [place], "|", color="black", markersize=18)
    axes.set_yticks(range(len(report.conditions)), [condition.name for condition in report.conditions])
    axes.invert_yaxis()
    axes.set(xlabel="bits per byte of held-out text (each seed, and the mean)", title=report.plan.title)


def _curves(axes: Axes, report: Report, label: str, place: Callable[[CurvePoint], float]) -> None:
    """Evaluations during training; the band reaches from the lowest seed to the highest."""
    palette = distinct_colours(len(report.conditions))
    for number, condition in enumerate(report.conditions):
        points = [point for point in curve(condition) if point.flops > 0]
        if not points:
            continue
        x, colour = [place(point) for point in points], palette[number]
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(x, [p.bits_per_byte for p in points], marker=marker, color=colour, label=condition.name)
        axes.fill_between(x, [p.lowest for p in points], [p.highest for p in points], color=colour, alpha=0.15)
    axes.set(xlabel=label, ylabel="bits per byte, while training", title=report.plan.title)
    axes.set_xscale("log")


def _scaling(axes: Axes, report: Report) -> None:
    """The final figure against the weights beside embedding and head, a line for each arm and axis value."""
    lines: dict[str, list[Condition]] = {}
    for condition in report.conditions:
        name = condition.name.removesuffix(f"-{condition.first.model}")
        lines.setdefault(name, []).append(condition)
    for (name, conditions), colour in zip(lines.items(), distinct_colours(len(lines)), strict=True):
        ordered = sorted(conditions, key=lambda c: c.results[0].backbone_parameters)
        intervals = [condition.bits_per_byte for condition in ordered]
        axes.errorbar(
            [condition.results[0].backbone_parameters for condition in ordered],
            [interval.mean for interval in intervals],
            yerr=[interval.deviation for interval in intervals],
            marker="o",
            capsize=3,
            color=colour,
            label=name,
        )
    axes.set(xlabel="weights beside embedding and head", ylabel="bits per byte", title=report.plan.title)
    axes.set_xscale("log")
