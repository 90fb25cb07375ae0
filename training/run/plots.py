"""The picture of a run: loss and bits per byte by view."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from proxybyte.symbols import View

_COLOURS = {View.RAW: "tab:blue", View.COMPRESSED: "tab:orange"}
_DARK = {View.RAW: "black", View.COMPRESSED: "saddlebrown"}
_POINTS = 200


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the lines of ``metrics.jsonl`` into ``path``: loss on the left, bits per byte of text on the right."""
    training = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, bits = figure.subplots(1, 2)
    for view in View:
        _curve(losses, training, f"{view}/loss", _COLOURS[view], f"{view} view")
        _curve(bits, training, f"{view}/bpb", _COLOURS[view], f"{view} view, training")
    for view in View:
        points = [(line["step"], line[name]) for line in evaluations if (name := f"validation/{view}_bpb") in line]
        if points:
            bits.plot(*zip(*points, strict=True), "o-", color=_DARK[view], label=f"{view} view, validation")
    losses.set(xlabel="step", ylabel="nats per symbol", title="Loss by view")
    bits.set(xlabel="step", ylabel="bits per byte of text", title="Bits per byte by view")
    for axes in (losses, bits):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
    figure.savefig(path, dpi=120)


def _curve(axes: Axes, lines: Sequence[Mapping[str, Any]], name: str, colour: str, label: str) -> None:
    """One metric over the steps, as means over about 200 equal stretches so that a long run stays readable."""
    points = np.array([(line["step"], line[name]) for line in lines if name in line])
    if len(points) == 0:
        return
    means = np.array([part.mean(axis=0) for part in np.array_split(points, min(_POINTS, len(points)))])
    axes.plot(means[:, 0], means[:, 1], color=colour, label=label)
