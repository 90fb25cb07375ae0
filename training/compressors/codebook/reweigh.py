"""Reweighing: exchange strings that real parses never use for longer ones that they would.

M1 says how likely a string is at any place; the parse asks only at places where the last match broke off, and takes a
string only where no longer one fits. So count on real text: how often each symbol is used, and how often each symbol is
followed by each byte, which is how often that longer string would have matched. Then the least used strings that
nothing extends make room for the longer strings with the largest counts, as long as they are wanted more.
"""

from dataclasses import dataclass

import numpy as np

from proxybyte.progress import Progress

from .automaton import Automaton
from .boundaries import Boundary, joins
from .trie import LONGEST, NUM_SINGLES, Trie, extend, keep

ROUNDS = 10
_SETTLED = 1000
"""A round that exchanges less than a node in so many is the last."""


@dataclass(frozen=True)
class Parsed:
    """What one parse of the text says.

    Attributes:
        uses: shape ``(n,)``; how often each node is a symbol.
        longer: shape ``(k,)``; ``256 * node + byte`` of strings that the parse would have matched.
        wanted: shape ``(k,)``; how often.
    """

    uses: np.ndarray
    longer: np.ndarray
    wanted: np.ndarray


def reweigh(trie: Trie, documents: list[bytes], boundary: Boundary, rounds: int = ROUNDS) -> Trie:
    """A trie of the same size whose strings are those that ``documents`` use.

    Args:
        trie: what M1 grew.
        documents: text like that to be coded.
        boundary: the rule that ``trie`` was grown by; for :attr:`Boundary.ENTROPY`, new strings only extend a string
            that something extends already, since only M1 could say where else a symbol must end.
        rounds: most rounds of exchange; each makes strings at most one byte longer.
    """
    text = np.frombuffer(b"".join(documents), np.uint8)
    lengths = np.array([len(document) for document in documents], np.int64)
    starts = np.cumsum(lengths) - lengths
    allowed = joins(boundary).ravel()
    for _ in Progress(range(rounds), desc="reweighing", unit="round", delay=2):
        parsed = _count(trie, text, starts)
        may = allowed[trie.last_bytes[parsed.longer >> 8].astype(np.int64) << 8 | parsed.longer & 255]
        may &= trie.spellings.lengths[parsed.longer >> 8] < LONGEST
        if boundary is Boundary.ENTROPY:
            may &= trie.is_prefix[parsed.longer >> 8]
        exchanged, trie = _exchange(trie, Parsed(parsed.uses, parsed.longer[may], parsed.wanted[may]))
        if exchanged * _SETTLED < len(trie):
            break
    return trie


def _count(trie: Trie, text: np.ndarray, starts: np.ndarray) -> Parsed:
    symbols = np.concatenate(Automaton(trie).parse(text, starts)).astype(np.int64)
    ends = np.cumsum(trie.spellings.lengths[symbols])
    inside = ~np.isin(ends, starts) & (ends < len(text))
    longer, wanted = np.unique(symbols[inside] << 8 | text[ends[inside]], return_counts=True)
    return Parsed(np.bincount(symbols, minlength=len(trie)), longer, wanted)


def _exchange(trie: Trie, parsed: Parsed) -> tuple[int, Trie]:
    """Number of strings exchanged, and the trie after it."""
    removable = np.flatnonzero(~trie.is_prefix)
    removable = removable[removable >= NUM_SINGLES]
    removable = removable[np.argsort(parsed.uses[removable], kind="stable")]
    best = np.argsort(-parsed.wanted, kind="stable")
    pairs = min(len(removable), len(best))
    better = parsed.wanted[best[:pairs]] > parsed.uses[removable[:pairs]]
    count = int(better.sum())
    added, removed = parsed.longer[best[:count]], removable[:count]
    stays = ~np.isin(removed, added >> 8)
    removed, added = removed[stays], added[: int(stays.sum())]
    kept = np.ones(len(trie), bool)
    kept[removed] = False
    return len(added), keep(extend(trie, added >> 8, added & 255), np.append(kept, np.ones(len(added), bool)))
