"""The picture of a run: loss and bits per byte by view, and the loss of each head where there are several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from proxybyte.folders import write_figure
from proxybyte.symbols import View

from .metrics import head_metric

_COLOURS = {View.RAW: "tab:blue", View.COMPRESSED: "tab:orange"}
_DARK = {View.RAW: "black", View.COMPRESSED: "saddlebrown"}
_POINTS = 200
Colour = str | tuple[float, float, float, float]


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the lines of ``metrics.jsonl`` into ``path``: loss, bits per byte of text, and loss by head."""
    training = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    heads = _heads(training)
    figure = Figure(figsize=(16 if heads else 11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, bits, *by_head = figure.subplots(1, 3 if heads else 2)
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
    for axes in (losses, bits, *by_head):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
    write_figure(path, figure, dpi=120)


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
