"""Noise in a text: single characters deleted, swapped, re-cased, re-indented or replaced by one that looks alike.

What a tokenizer model pays for a typo is a different cut of the word into tokens; a byte model pays for one character.
Each kind is a function of the text, the share and the seed, so that every model reads the same noised text.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from proxybyte.errors import ProxyByteError


class Noise(StrEnum):
    """What happens to a character that is struck."""

    DELETE = "delete"
    """It is left out."""
    SWAP = "swap"
    """It changes places with the next one."""
    CASE = "case"
    """Its case is the other one."""
    INDENT = "indent"
    """A line's leading spaces become one more or one fewer."""
    HOMOGLYPH = "homoglyph"
    """A letter of another script that looks alike stands in its place."""
    MIXED = "mixed"
    """One of ``delete``, ``swap`` and ``case``, drawn anew each time: typos."""


_TYPOS = (Noise.DELETE, Noise.SWAP, Noise.CASE)
_LOOKALIKES = dict(
    zip(
        "acdehijlopsuvxyABCEHIJKMNOPSTXYZ",
        "\u0430\u0441\u0501\u0435\u04bb\u0456\u0458\u04cf\u043e\u0440\u0455\u057d\u0475\u0445\u0443"
        "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u039d\u041e\u0420\u0405\u0422\u0425\u03a5\u0396",
        strict=True,
    )
)
"""Unicode's confusables (UTS 39) that are one letter each: Cyrillic, Greek, Armenian for Latin."""


def noised(text: str, share: float, kind: Noise = Noise.MIXED, seed: int = 0) -> str:
    """``text`` with noise.

    Args:
        text: any.
        share: of the characters that the kind can strike (lines, for ``indent``), each drawn alone; 0 to 1.
        kind: what happens to them.
        seed: the same seed draws the same numbers for the same characters, whatever the share.

    Returns:
        The text; a character that cannot change (a digit's case) stays, and is not counted among those to strike.

    Raises:
        ProxyByteError: if the share is none.
    """
    if not 0 <= share <= 1:
        raise ProxyByteError(f"a share of noise of {share} is none: give a number from 0 to 1")
    draw = random.Random(f"{seed} {kind}")
    if kind is Noise.INDENT:
        return "".join(_re_indented(line, draw, share) for line in text.splitlines(keepends=True))
    out, place = [], 0
    while place < len(text):
        struck, chosen = draw.random() < share, draw.choice(_TYPOS)
        strike = _STRIKES[chosen if kind is Noise.MIXED else kind]
        piece, used = strike(text[place : place + 2]) if struck else (text[place], 1)
        out.append(piece)
        place += used
        for _ in range(used - 1):  # draws stay in step with characters, whatever the share
            draw.random()
            draw.choice(_TYPOS)
    return "".join(out)


def noised_bytes(text: bytes, share: float, kind: Noise = Noise.MIXED, seed: int = 0) -> bytes:
    """:func:`noised` of UTF-8; bytes that are none stand for a character each and stay."""
    return noised(text.decode("utf-8", "surrogateescape"), share, kind, seed).encode("utf-8", "surrogateescape")


def _re_indented(line: str, draw: random.Random, share: float) -> str:
    struck, more = draw.random() < share, draw.random() < 0.5
    if not struck or not line.startswith(" "):
        return line
    return f" {line}" if more else line[1:]


def _swapped(pair: str) -> tuple[str, int]:
    return pair[::-1], len(pair)


_STRIKES: dict[Noise, Callable[[str], tuple[str, int]]] = {
    Noise.DELETE: lambda pair: ("", 1),
    Noise.SWAP: _swapped,
    Noise.CASE: lambda pair: (pair[0].swapcase(), 1),
    Noise.HOMOGLYPH: lambda pair: (_LOOKALIKES.get(pair[0], pair[0]), 1),
}
"""Of a character and the next one (if there is one): what stands in their place, and how many of the two it used up."""


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


def measure_noise(
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


def noise_crossing(one: NoiseCurve, other: NoiseCurve) -> float | None:
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


def draw_noise(curves: Sequence[NoiseCurve]) -> "Figure":
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
