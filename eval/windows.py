"""Which stretch of which sequence goes through the model in one piece, and which of its symbols that piece scores.

A sequence that fits is one window. A longer one is cut into windows of ``window`` symbols whose starts lie ``stride``
apart; each opens with the sequence's prefix again, so that the model always sees what it saw in training. The first
window scores all it holds, each later one only its last ``stride`` symbols: every symbol is scored exactly once, and
from the second window on with at least ``window - stride`` symbols (and the prefix) before it.
"""

from dataclasses import dataclass

import numpy as np

from proxybyte.errors import ProxyByteError


@dataclass(frozen=True)
class WindowRule:
    """How sequences are cut.

    Attributes:
        window: symbols of the sequence in one window, its prefix not counted.
        stride: distance between the starts of two windows; ``window`` means that windows do not overlap.

    Raises:
        ProxyByteError: unless ``1 <= stride <= window``.
    """

    window: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window:
            raise ProxyByteError(f"stride {self.stride} must lie between 1 and the window, {self.window}")


@dataclass(frozen=True)
class WindowTable:
    """Windows of many sequences, each attribute an int64 array of shape ``(windows,)``.

    Attributes:
        sequence: index of the sequence; ascending.
        start: first symbol of the window, as an offset into the sequence.
        score_from: first symbol that this window scores, ``start <= score_from < end``.
        end: one past the last symbol of the window.
    """

    sequence: np.ndarray
    start: np.ndarray
    score_from: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def lengths(self) -> np.ndarray:
        """Symbols in each window."""
        return self.end - self.start


def plan_windows(lengths: np.ndarray, rule: WindowRule, score_from: np.ndarray | None = None) -> WindowTable:
    """Lay out the windows of sequences of ``lengths`` symbols.

    Args:
        lengths: symbols in each sequence, shape ``(S,)``.
        rule: how to cut.
        score_from: first symbol to score in each, shape ``(S,)`` (the symbols before it are context alone); 0 for all
            when absent. Context that is out of every window's reach is dropped from the left.

    Returns:
        The windows, in the order of the sequences. A sequence with nothing to score has none.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    first = np.zeros_like(lengths) if score_from is None else np.asarray(score_from, dtype=np.int64)
    kept_context = rule.window - rule.stride
    base = np.maximum(0, np.minimum(first - kept_context, lengths - rule.window))
    later = -(-np.maximum(0, lengths - base - rule.window) // rule.stride)
    counts = np.where(lengths > first, 1 + later, 0)

    sequence = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(sequence)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = base[sequence] + number * rule.stride
    end = np.minimum(lengths[sequence], start + rule.window)
    scored = np.where(number == 0, first[sequence], start + kept_context)
    return WindowTable(sequence=sequence, start=start, score_from=scored, end=end)
