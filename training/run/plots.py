"""The picture of a run: loss and bits per byte by view, and the loss of each head where there are several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from proxybyte.folders import write_figure
from proxybyte.symbols import View

from ..stream.schedule import Phase, Phases
from .metrics import head_metric
from .validation import Given, transfer_metric

_COLOURS = {View.RAW: "tab:blue", View.COMPRESSED: "tab:orange"}
_DARK = {View.RAW: "black", View.COMPRESSED: "saddlebrown"}
_POINTS = 200
_WIDE = 3.0
"""Where the highest value is so many times the lowest, the end of a curve is flat on a linear axis."""
Colour = str | tuple[float, float, float, float]


def draw(lines: Sequence[Mapping[str, Any]], path: Path, phases: Phases | None = None) -> None:
    """Draw the lines of ``metrics.jsonl`` into ``path``: loss, bits per byte of text, loss by head, and transfer.

    Args:
        lines: of one run.
        path: a PNG.
        phases: of the run's plan, to be marked.
    """
    training = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    heads = _heads(training)
    met = [line for line in evaluations if transfer_metric(View.RAW, Given.OTHER_VIEW) in line]
    panels = 2 + bool(heads) + bool(met)
    figure = Figure(figsize=(1 + 5 * panels, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, bits, *further = figure.subplots(1, panels)
    by_head, meeting = further[: bool(heads)], further[bool(heads) :]
    for view in View:
        _curve(losses, training, f"{view}/loss", _COLOURS[view], f"{view} view")
        _curve(bits, training, f"{view}/bpb", _COLOURS[view], f"{view} view, training")
    for view in View:
        points = [(line["step"], line[name]) for line in evaluations if (name := f"validation/{view}_bpb") in line]
        if points:
            bits.plot(*zip(*points, strict=True), "o-", color=_DARK[view], label=f"{view} view, validation")
    losses.set(xlabel="step", ylabel="nats per symbol", title="Loss by view")
    bits.set(xlabel="step", ylabel="bits per byte of text", title="Bits per byte by view")
    for axes in by_head:
        for head in (0, *heads):
            colour = colormaps["viridis"](head / (len(heads) + 1))
            _curve(axes, training, head_metric(head), colour, f"{head + 1} ahead")
        axes.set(xlabel="step", ylabel="nats per target", title="Loss by head")
    for axes in meeting:
        draw_transfer(axes, met)
    for axes in (losses, bits, *by_head, *meeting):
        axes.grid(alpha=0.3)
        if axes.has_data():
            _stretch(axes)
            axes.legend(fontsize="small", framealpha=0.9, loc="upper right")
            if phases is not None:
                _mark(axes, phases)
    write_figure(path, figure, dpi=120)


def draw_transfer(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Bits of each view alone (dashed) and with the other in the context: below it, what the context says is read."""
    for view in View:
        for given, style in ((Given.NOTHING, "--"), (Given.OTHER_VIEW, "o-")):
            points = [(line["step"], line[transfer_metric(view, given)]) for line in lines]
            label = f"{view}, {'alone' if given is Given.NOTHING else 'the other view given'}"
            axes.plot(*zip(*points, strict=True), style, color=_COLOURS[view], label=label)
    axes.set(xlabel="step", ylabel="bits per byte of text", title="Do the views meet?")


def _stretch(axes: Axes) -> None:
    """A logarithmic axis of values where they span much, so that what a run gains late is seen too."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()])
    values = values[np.isfinite(values)]
    if len(values) == 0 or values.min() <= 0 or values.max() < _WIDE * values.min():
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _mark(axes: Axes, phases: Phases) -> None:
    """A line where each phase begins, and its name in a stripe below the curves."""
    spans = [(phase, *phases.span(phase)) for phase in Phase]
    present = [(phase, first, end) for phase, first, end in spans if end > first]
    if len(present) < 2:
        return
    low, high = axes.get_ylim()
    logarithmic = axes.get_yscale() == "log"
    axes.set_ylim(low * (low / high) ** 0.06 if logarithmic else low - 0.06 * (high - low), high)
    for phase, first, end in present:
        if first:
            axes.axvline(first, color="grey", linestyle=":", linewidth=1.2)
        middle, frame = (first + end) / 2, axes.get_xaxis_transform()
        axes.text(middle, 0.015, phase, transform=frame, ha="center", fontsize="x-small", color="dimgrey")


def _heads(lines: Sequence[Mapping[str, Any]]) -> list[int]:
    """The heads after the first that any line has a loss of, in order."""
    found = {name for line in lines for name in line}
    head = 1
    while head_metric(head) in found:
        head += 1
    return list(range(1, head))


def _curve(axes: Axes, lines: Sequence[Mapping[str, Any]], name: str, colour: Colour, label: str) -> None:
    """One metric over the steps, as means over about 200 equal stretches so that a long run stays readable."""
    points = np.array([(line["step"], line[name]) for line in lines if name in line])
    if len(points) == 0:
        return
    means = np.array([part.mean(axis=0) for part in np.array_split(points, min(_POINTS, len(points)))])
    axes.plot(means[:, 0], means[:, 1], color=colour, label=label)
