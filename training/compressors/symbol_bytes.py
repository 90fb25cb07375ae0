"""Bytes of symbols that spell the same wherever they stand, without a Python loop over symbols."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np

_AT_ONCE = 1 << 13
"""Symbols spelled together; keeps the index arrays inside a core's cache."""
_SUMMED_AT_ONCE = 1 << 19


@dataclass(frozen=True)
class SymbolBytes:
    """What each of ``n`` symbols spells.

    Attributes:
        lengths: shape ``(n,)``, int64; bytes of each symbol, 0 for one that spells nothing.
        offsets: shape ``(n,)``, int64; where each begins in ``flat``.
        flat: shape ``(lengths.sum(),)``, uint8; all of them one after another.
    """

    lengths: np.ndarray
    offsets: np.ndarray
    flat: np.ndarray

    @classmethod
    def of(cls, spelled: Sequence[bytes | None]) -> Self:
        """From the bytes of each symbol, ``None`` where it spells nothing."""
        lengths = np.array([len(text or b"") for text in spelled], dtype=np.int64)
        flat = np.frombuffer(b"".join(text or b"" for text in spelled), dtype=np.uint8)
        return cls(lengths, np.cumsum(lengths) - lengths, flat)

    def string(self, symbol: int) -> bytes:
        """The bytes that ``symbol`` spells."""
        return self.flat[self.offsets[symbol] : self.offsets[symbol] + self.lengths[symbol]].tobytes()

    def ends(self, symbols: np.ndarray) -> np.ndarray:
        """How many bytes the first, the first two, ... all of ``symbols`` spell; int64 of their shape ``(k,)``."""
        return np.cumsum(self.lengths[symbols])

    def before(self, symbols: np.ndarray, places: np.ndarray) -> np.ndarray:
        """How many bytes the first ``k`` of ``symbols`` spell, for each ``k`` in ``places``.

        Args:
            symbols: shape ``(n,)``.
            places: of any shape; flattened they do not fall, and lie in ``0 .. n``.

        Returns:
            int64 of the shape of ``places``. Memory does not grow with ``n``.
        """
        wanted, found = places.ravel(), np.zeros(places.size, np.int64)
        spelled = done = 0
        for first in range(0, len(symbols), _SUMMED_AT_ONCE):
            ends = self.ends(symbols[first : first + _SUMMED_AT_ONCE])
            upto = int(np.searchsorted(wanted, first + len(ends), side="right"))
            here = wanted[done:upto] - first
            found[done:upto] = spelled + np.where(here > 0, ends[here - 1], 0)
            spelled, done = spelled + int(ends[-1]), upto
        return found.reshape(places.shape)

    def spell(self, symbols: np.ndarray) -> bytes:
        """Bytes of ``symbols`` (shape ``(k,)``, integers in ``0 .. n - 1``), one after another."""
        return b"".join(self._spell(some).tobytes() for some in _parts(symbols))

    def spells(self, symbols: np.ndarray, text: bytes) -> bool:
        """Whether each of ``symbols`` spells something, and all of them ``text``; without a copy of it."""
        wanted, place = np.frombuffer(text, dtype=np.uint8), 0
        for some in _parts(symbols):
            spelled = self._spell(some)
            if not self.lengths[some].all() or not np.array_equal(spelled, wanted[place : place + len(spelled)]):
                return False
            place += len(spelled)
        return place == len(text)

    def _spell(self, symbols: np.ndarray) -> np.ndarray:
        lengths = self.lengths[symbols]
        ends = np.cumsum(lengths)
        # Where each byte is found: as far from its place in the text as its symbol's first byte is.
        source = np.repeat(self.offsets[symbols] - (ends - lengths), lengths)
        source += np.arange(len(source))
        return self.flat.take(source, mode="clip")


def _parts(symbols: np.ndarray) -> Iterator[np.ndarray]:
    return (symbols[first : first + _AT_ONCE] for first in range(0, len(symbols), _AT_ONCE))


@runtime_checkable
class SpellsAlone(Protocol):
    """A compressor each of whose symbols spells the same bytes wherever it stands.

    Attributes:
        symbol_bytes: what each spells; ``None`` for an instance that is none of these.
    """

    symbol_bytes: SymbolBytes | None


def symbol_bytes_of(compressor: object) -> SymbolBytes | None:
    """What each symbol of ``compressor`` spells by itself, ``None`` where that depends on others."""
    return compressor.symbol_bytes if isinstance(compressor, SpellsAlone) else None
