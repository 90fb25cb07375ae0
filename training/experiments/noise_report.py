"""Where the lines of conditions cross as text gets noisier: curves over the seeds of a plan, crossings, a table."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxybyte.eval import NoiseCurve, draw_noise, noise_crossing

from .results import CellResult


@dataclass(frozen=True)
class Crossing:
    """Where a condition meets the first one under one kind of noise; ``None`` where they do not.

    Attributes:
        kind: of the noise.
        conditions: the first condition and the other.
        share: of the curves of all seeds together.
        by_seed: of each seed that both have, in the order of the plan.
    """

    kind: str
    conditions: tuple[str, str]
    share: float | None
    by_seed: tuple[float | None, ...]


def noise_curves(name: str, results: Sequence[CellResult]) -> list[NoiseCurve]:
    """Curves of a condition, one a kind: at each share one figure a seed of the plan, the mean over draws of noise."""
    curves = []
    for several in zip(*(result.noise for result in results), strict=False):
        first = several[0]
        bits = tuple(zip(*(curve.means for curve in several), strict=True))
        curves.append(NoiseCurve(name, first.kind, first.shares, bits))
    return curves


def crossings(results: Mapping[str, Sequence[CellResult]]) -> list[Crossing]:
    """Of every condition with the first; seeds are paired as they stand."""
    names = [name for name, several in results.items() if several and several[0].noise]
    found = []
    for other in names[1:]:
        pairs = zip(noise_curves(names[0], results[names[0]]), noise_curves(other, results[other]), strict=True)
        for place, (one, two) in enumerate(pairs):
            seeds = zip(results[names[0]], results[other], strict=False)
            by_seed = tuple(noise_crossing(a.noise[place], b.noise[place]) for a, b in seeds)
            found.append(Crossing(one.kind.value, (names[0], other), noise_crossing(one, two), by_seed))
    return found


def noise_rows(results: Mapping[str, Sequence[CellResult]]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Head and rows of a table: means over seeds at each share, and where a condition crosses the first."""
    met = {(one.kind, one.conditions[1]): one for one in crossings(results)}
    rows: list[tuple[str, ...]] = []
    shares: tuple[float, ...] = ()
    for name, several in results.items():
        for curve in noise_curves(name, several):
            shares = curve.shares
            crossed = met.get((curve.kind.value, name))
            seeds = () if crossed is None else crossed.by_seed
            told = [] if crossed is None else [_spell(crossed.share), f"({', '.join(map(_spell, seeds))})"]
            figures = (f"{mean:.4f}" for mean in curve.means)
            rows.append((name, curve.kind.value, *figures, " ".join(told)))
    columns = (f"{share:.0%}" for share in shares)
    return ("condition", "noise", *columns, "crosses the first at (each seed)"), tuple(rows)


def noise_picture(results: Mapping[str, Sequence[CellResult]]) -> bytes:
    """A PNG: one panel a kind of noise, one line a condition, a band over seeds, crossings marked."""
    curves = [curve for name, several in results.items() for curve in noise_curves(name, several)]
    figure = draw_noise(curves)
    panels = {axes.get_title(): axes for axes in figure.axes}
    for one in crossings(results):
        if one.share is not None:
            panels[one.kind].axvline(100 * one.share, color="grey", linestyle=":", linewidth=1)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    return buffer.getvalue()


def noise_json(results: Mapping[str, Sequence[CellResult]]) -> dict[str, Any]:
    """Curves and crossings as plain data."""
    curves = [curve.as_dict() for name, several in results.items() for curve in noise_curves(name, several)]
    return {"curves": curves, "crossings": [vars(one) for one in crossings(results)]}


def _spell(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
