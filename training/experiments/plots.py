"""Pictures of a report: bits per byte against FLOPs, against bytes of text, and against the size of the model."""

import io
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..colours import distinct_colours
from .report import Condition, CurvePoint, Report, curve, transfer_curve

_MARKERS = "osD^v<>Ph*"


def draw_report(report: Report) -> dict[str, bytes]:
    """PNG files by name without suffix: ``seeds``, ``flops``, ``bytes``; ``scaling`` and ``transfer`` where there is any."""
    pictures = {
        "seeds": _figure(report, _seeds),
        "flops": _figure(report, lambda axes, report: _curves(axes, report, "training FLOPs", lambda p: p.flops)),
        "bytes": _figure(report, lambda axes, report: _curves(axes, report, "bytes of text", lambda p: p.text_bytes)),
    }
    if report.several_models:
        pictures["scaling"] = _figure(report, _scaling)
    if any(transfer_curve(condition) for condition in report.conditions):
        pictures["transfer"] = _figure(report, _transfer)
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


def _transfer(axes: Axes, report: Report) -> None:
    """Bits a byte that the other view in the context saves, in both directions; above zero the views have met."""
    palette = distinct_colours(len(report.conditions))
    for number, condition in enumerate(report.conditions):
        points = [point for point in transfer_curve(condition) if point.flops > 0]
        if not points:
            continue
        flops, marker = [point.flops for point in points], _MARKERS[number % len(_MARKERS)]
        for style, saved, direction in (
            ("-", [point.raw - point.raw_given for point in points], "compressed to raw"),
            ("--", [point.compressed - point.compressed_given for point in points], "raw to compressed"),
        ):
            label = f"{condition.name}, {direction}"
            axes.plot(flops, saved, style, marker=marker, color=palette[number], label=label)
    axes.axhline(0, color="grey", linewidth=1)
    axes.set(xlabel="training FLOPs", ylabel="bits a byte saved by the other view", title=report.plan.title)
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
