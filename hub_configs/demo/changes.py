"""Small changes to a text, to see what they do to what its bytes cost and to its symbols."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from rapidfuzz.distance import Levenshtein

from .model import CompressedText, DemoModel


class Change(StrEnum):
    """What is done to a text; the values are what a person reads."""

    SWAP = "typo: two letters swapped"
    LOSS = "typo: a letter lost"
    DOUBLING = "typo: a letter doubled"
    TABS = "reformat: tabs for four spaces"
    SPACES = "reformat: spaces around operators left out"
    BLANK_LINES = "reformat: blank lines left out"
    WINDOWS = "reformat: lines end in CR LF"
    UPPER = "reformat: all letters upper case"


def changed(text: str, change: Change, seed: int = 0) -> str:
    """``text`` with ``change`` done to it; as it is where there is no place for it.

    Args:
        text: any.
        change: which.
        seed: picks the place of a typo.
    """
    if change in _TYPOS:
        places = [place for place in range(len(text) - 1) if _is_inside_a_word(text, place)]
        if not places:
            return text
        place = random.Random(seed).choice(places)
        return text[:place] + _TYPOS[change](text[place : place + 2]) + text[place + 2 :]
    return _REFORMATS[change](text)


def _is_inside_a_word(text: str, place: int) -> bool:
    """Whether two different letters stand at ``place``."""
    first, second = text[place], text[place + 1]
    return first.isalpha() and second.isalpha() and first != second


def _without_spaces_at_operators(text: str) -> str:
    for operator in ("==", "!=", "<=", ">=", "+=", "-=", "->", "=", "+", "-", "*", "/", "<", ">", "%"):
        text = text.replace(f" {operator} ", operator)
    return text


def _without_blank_lines(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.strip())


_TYPOS: dict[Change, Callable[[str], str]] = {
    Change.SWAP: lambda pair: pair[::-1],
    Change.LOSS: lambda pair: pair[1],
    Change.DOUBLING: lambda pair: pair[0] + pair,
}
"""Each takes the two letters at the place."""
_REFORMATS: dict[Change, Callable[[str], str]] = {
    Change.TABS: lambda text: text.replace("    ", "\t"),
    Change.SPACES: _without_spaces_at_operators,
    Change.BLANK_LINES: _without_blank_lines,
    Change.WINDOWS: lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
    Change.UPPER: str.upper,
}


@dataclass(frozen=True)
class Side:
    """One of two texts.

    Attributes:
        text: its bytes.
        bits: what each costs, shape ``(len(text),)``.
        marked: offsets of bytes that the other does not have.
    """

    text: bytes
    bits: np.ndarray
    marked: frozenset[int]


@dataclass(frozen=True)
class SymbolsChanged:
    """What a change does to the codes of one compressor.

    Attributes:
        name: of the compressor, or of the raw bytes.
        before: symbols of the original.
        after: symbols of the changed text.
        edits: symbols put in, taken out or replaced at least (Levenshtein distance).
    """

    name: str
    before: int
    after: int
    edits: int


@dataclass(frozen=True)
class Compared:
    """Two texts side by side."""

    before: Side
    after: Side
    symbols: tuple[SymbolsChanged, ...]


def compare(model: DemoModel, before: bytes, after: bytes) -> Compared:
    """Two texts under one model and its compressors.

    Raises:
        ProxyByteError: if one exceeds the model's context.
    """
    lost, new = _differing(before, after)
    pairs = zip(model.compressed(before), model.compressed(after), strict=True)
    symbols = [SymbolsChanged("raw bytes", len(before), len(after), Levenshtein.distance(before, after))]
    symbols += [_symbols(*pair) for pair in pairs if pair[0].refusal is None and pair[1].refusal is None]
    return Compared(Side(before, model.bits(before), lost), Side(after, model.bits(after), new), tuple(symbols))


def _symbols(before: CompressedText, after: CompressedText) -> SymbolsChanged:
    codes = before.codes.tolist(), after.codes.tolist()
    return SymbolsChanged(before.compressor, len(codes[0]), len(codes[1]), Levenshtein.distance(*codes))


def _differing(before: bytes, after: bytes) -> tuple[frozenset[int], frozenset[int]]:
    """Offsets of bytes of each that an alignment with the fewest edits puts in, takes out or replaces."""
    steps = Levenshtein.opcodes(before, after)
    apart = [step for step in steps if step.tag != "equal"]
    return (
        frozenset(place for step in apart for place in range(step.src_start, step.src_end)),
        frozenset(place for step in apart for place in range(step.dest_start, step.dest_end)),
    )
