"""Bits per byte against the share of noise: one curve a model, and where two of them cross."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxybyte.eval.noise import Noise, noised_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Score = Callable[[Sequence[bytes]], float]
"""Bits per byte of some documents under a model."""


@dataclass(frozen=True)
class NoiseCurve:
    """One model under one kind of noise.

    Attributes:
        model: as it was named.
        kind: of the noise.
        shares: of characters struck, rising.
        bits: bits per byte of the noised text at each share, one for each seed, shape ``(shares, seeds)``.
    """

    model: str
    kind: Noise
    shares: tuple[float, ...]
    bits: tuple[tuple[float, ...], ...]

    @property
    def means(self) -> list[float]:
        """Over seeds, at each share."""
        return [sum(seeds) / len(seeds) for seeds in self.bits]

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON."""
        return {"model": self.model, "kind": self.kind.value, "shares": list(self.shares), "bpb": self.bits}


def measure(
    score: Score, model: str, texts: Sequence[bytes], kind: Noise, shares: Sequence[float], seeds: Sequence[int]
) -> NoiseCurve:
    """Score ``texts`` at every share with every seed; without noise all seeds are one.

    A document of which nothing is left is not scored.
    """
    rows = []
    for share in shares:
        read = [[t for text in texts if (t := noised_bytes(text, share, kind, seed))] for seed in seeds]
        rows.append((score(read[0]),) * len(seeds) if share == 0 else tuple(score(noisy) for noisy in read))
    return NoiseCurve(model, kind, tuple(shares), tuple(rows))


def crossing(one: NoiseCurve, other: NoiseCurve) -> float | None:
    """The smallest share at which the mean curves meet, straight lines between the points; ``None`` if nowhere.

    Both are of the same shares.
    """
    apart = [a - b for a, b in zip(one.means, other.means, strict=True)]
    for place, (before, after) in enumerate(itertools.pairwise(apart)):
        if before == 0:
            return one.shares[place]
        if before * after < 0:
            low, high = one.shares[place : place + 2]
            return low + (high - low) * before / (before - after)
    return one.shares[-1] if apart[-1] == 0 else None


def draw(curves: Sequence[NoiseCurve]) -> "Figure":
    """One panel a kind of noise, one line a model with the seeds' spread as a band."""
    from matplotlib.figure import Figure

    from proxybyte.training import distinct_colours

    kinds, models = list(dict.fromkeys(c.kind for c in curves)), list(dict.fromkeys(c.model for c in curves))
    colours = dict(zip(models, distinct_colours(len(models)), strict=True))
    figure = Figure(figsize=(1 + 4 * len(kinds), 4.2), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        for curve in (c for c in curves if c.kind is kind):
            percent = [100 * share for share in curve.shares]
            panel.plot(percent, curve.means, marker="o", markersize=4, color=colours[curve.model], label=curve.model)
            low, high = [min(seeds) for seeds in curve.bits], [max(seeds) for seeds in curve.bits]
            panel.fill_between(percent, low, high, color=colours[curve.model], alpha=0.2)
        struck = "lines" if kind is Noise.INDENT else "characters"
        panel.set(title=kind.value, xlabel=f"{struck} struck, %")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("bits per byte of the noised text")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 3), fontsize="small")
    return figure
