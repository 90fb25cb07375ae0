"""Do the views of a condition meet? What the other view in the context saves while its cells train."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from ..drawn_text import distinct_colours
from .results import CellResult, TransferPoint

_MARKERS = "osD^v<>Ph*"


def transfer_curve(results: Sequence[CellResult]) -> list[TransferPoint]:
    """Evaluations of both views as far as every seed has them; means over seeds, point by point."""
    points = []
    for several in zip(*(result.transfer for result in results), strict=False):
        names = ("flops", "raw", "raw_given", "compressed", "compressed_given")
        means = (math.fsum(getattr(point, name) for point in several) / len(several) for name in names)
        points.append(TransferPoint(several[0].step, *means))
    return points


def draw_transfer(axes: Axes, title: str, curves: Mapping[str, Sequence[TransferPoint]]) -> None:
    """Bits a byte that the other view saves, by condition and direction; above zero the views have met."""
    palette = distinct_colours(len(curves))
    for number, (name, curve) in enumerate(curves.items()):
        points = [point for point in curve if point.flops > 0]
        flops, marker = [point.flops for point in points], _MARKERS[number % len(_MARKERS)]
        for style, saved, direction in (
            ("-", [point.raw - point.raw_given for point in points], "compressed to raw"),
            ("--", [point.compressed - point.compressed_given for point in points], "raw to compressed"),
        ):
            if points:
                label = f"{name}, {direction}"
                axes.plot(flops, saved, style, marker=marker, color=palette[number], label=label)
    axes.axhline(0, color="grey", linewidth=1)
    axes.set(xlabel="training FLOPs", ylabel="bits a byte saved by the other view", title=title)
    axes.set_xscale("log")
