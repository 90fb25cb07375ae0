"""Where a symbol must end: rules that keep the growing trie from spelling across a boundary.

A string that is not in the trie cannot be matched, so the parse restarts at every boundary by itself: encoding knows
nothing of these rules. In return an edit moves the parse at most to the next boundary.
"""

from enum import StrEnum

import numpy as np


class Boundary(StrEnum):
    """A rule by name."""

    NONE = "none"
    """Symbols may span anything."""
    LINE = "line"
    """A symbol ends before a run of line feeds; what follows the run (indentation, a word) may be joined to it."""
    PRETOKEN = "pretoken"
    """As in byte-pair encoding: a symbol is within one word, number, run of marks or run of blanks. One blank may open
    a word or a run of marks, and indentation stays with the line feed before it."""
    ENTROPY = "entropy"
    """A symbol ends where M1, having read it from a fresh context, is uncertain of the next byte: its entropy is above
    a threshold, or rises by more than a jump over the byte before."""


def joins(boundary: Boundary) -> np.ndarray:
    """Shape ``(256, 256)``, bool: whether byte ``b`` may stand right after byte ``a`` in one symbol, at ``[a, b]``."""
    allowed = np.ones((256, 256), bool)
    code = np.arange(256)
    feed, blank = code == ord("\n"), np.isin(code, list(b" \t\r\n\v\f"))
    if boundary in (Boundary.LINE, Boundary.PRETOKEN):
        allowed[np.ix_(~feed, feed)] = False
    if boundary is Boundary.PRETOKEN:
        text = bytes(range(256))
        word = np.array([text[i : i + 1].isalpha() or i == ord("_") or i >= 128 for i in code])
        digit = np.isin(code, list(b"0123456789"))
        mark = ~(word | digit | blank)
        kinds = (word, digit, mark, blank)
        for left in kinds:
            for right in kinds:
                if left is not right:
                    allowed[np.ix_(left, right)] = False
        allowed[ord(" "), word | mark] = True
    return allowed
