"""Training examples for M1: stretches of text from random places, each read from a fresh context."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from proxybyte.errors import ProxyByteError

NO_TARGET = -100


@dataclass(frozen=True, eq=False)
class TextSampler:
    """Documents as one array, from which batch ``i`` is a pure function of ``(seed, i)``.

    Attributes:
        text: ``(n,)`` uint8; the documents one after another.
        ends: ``(d,)`` int64, ascending; where each document ends.
    """

    text: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, documents: Sequence[bytes]) -> Self:
        """A sampler of ``documents``.

        Raises:
            ProxyByteError: if they hold no byte.
        """
        ends = np.cumsum([len(document) for document in documents if document], dtype=np.int64)
        if not len(ends):
            raise ProxyByteError("there is no text to fit M1 on")
        return cls(np.frombuffer(b"".join(documents), np.uint8), ends)

    def byte_counts(self) -> np.ndarray:
        """How often each byte occurs, shape ``(256,)``."""
        return np.bincount(self.text, minlength=256)

    def batch(self, size: int, context: int, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, ``(context, size)`` int64 each.

        Each column is the text from a place drawn uniformly; targets beyond its document are :data:`NO_TARGET`.
        """
        start = np.random.default_rng(seed).integers(0, len(self.text), size)
        place = start + np.arange(context)[:, None]
        inside = place < self.ends[np.searchsorted(self.ends, start, side="right")]
        text = self.text[np.minimum(place, len(self.text) - 1)].astype(np.int64)
        return text, np.where(inside, text, NO_TARGET)
