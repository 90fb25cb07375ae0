"""Placements: documents in the forms in which they stand in the stream, and the spans that each form is made of."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

HAND_OFF_PARTS = 16
"""A hand-off turns raw at a multiple of one sixteenth of the document's symbols."""


class Form(IntEnum):
    """In which view or views a placement shows its document."""

    RAW = 0
    COMPRESSED = 1
    RAW_THEN_COMPRESSED = 2
    COMPRESSED_THEN_RAW = 3
    HAND_OFF = 4
    """A compressed prefix, then the rest raw."""
    PARALLEL_RAW = 5
    """Raw half of a parallel pair; its twin is the placement beside it."""
    PARALLEL_COMPRESSED = 6


_VIEWS_OF_FORM = np.array([[0, 1, 0, 1, 1, 0, 1], [-1, -1, 1, 0, 0, -1, -1]], np.int8)
"""First and second span of each form: 0 raw, 1 compressed, -1 none."""


@dataclass(frozen=True)
class Lengths:
    """What a plan knows of the documents.

    Attributes:
        n_bytes: shape ``(documents,)``, bytes.
        n_symbols: shape ``(documents,)``, compressed symbols; -1 where a document can only be raw.
        borders: shape ``(documents, 15)``, byte offset at each sixteenth of the symbols; needed for hand-offs only.
    """

    n_bytes: np.ndarray
    n_symbols: np.ndarray
    borders: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.n_bytes)

    @classmethod
    def superposed(cls, n_bytes: np.ndarray, size: int) -> "Lengths":
        """Those of documents whose compressed view is bags of ``size`` bytes, the last one of what is left."""
        bags = -(-n_bytes.astype(np.int64) // size)
        ends = bags[:, None] * np.arange(1, HAND_OFF_PARTS) // HAND_OFF_PARTS * size
        return cls(n_bytes, bags, np.where(bags[:, None] < HAND_OFF_PARTS, 0, ends))


@dataclass(frozen=True)
class Placements:
    """Documents as they stand in the stream, in order; all arrays have shape ``(placements,)``.

    Attributes:
        document: index of the document.
        form: a :class:`Form`.
        part: for a hand-off, the sixteenth (1 to 15) at which it turns raw; else 0.
        epoch: the pass over the documents it belongs to.
        start: offset of its first symbol in the stream; one element more, the length of the stream.
    """

    document: np.ndarray
    form: np.ndarray
    part: np.ndarray
    epoch: np.ndarray
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.document)


@dataclass(frozen=True)
class Segments:
    """Up to two spans of each placement: ``view`` 0 raw, 1 compressed, -1 absent; arrays of shape ``(2, n)``.

    ``begin`` and ``length`` count bytes in a raw span and symbols in a compressed one.
    """

    view: np.ndarray
    begin: np.ndarray
    length: np.ndarray


def segments(lengths: Lengths, document: np.ndarray, form: np.ndarray, part: np.ndarray) -> Segments:
    """Spans of documents in given forms; arrays of shape ``(n,)`` in, ``(2, n)`` out."""
    n_bytes = lengths.n_bytes[document].astype(np.int64)
    n_symbols = np.maximum(lengths.n_symbols[document], 0).astype(np.int64)
    view = _VIEWS_OF_FORM[:, form]
    begin = np.zeros(view.shape, np.int64)
    length = np.where(view == 1, n_symbols, n_bytes)
    length[1] *= view[1] >= 0
    cut = np.flatnonzero(part)
    if len(cut):
        assert lengths.borders is not None
        border = lengths.borders[document[cut], part[cut].astype(np.int64) - 1].astype(np.int64)
        length[0][cut] = n_symbols[cut] * part[cut] // HAND_OFF_PARTS
        begin[1][cut] = border
        length[1][cut] = n_bytes[cut] - border
    return Segments(view, begin, length)


@dataclass(frozen=True)
class Offsets:
    """Where the symbols of placements lie, counted from the first symbol of each; the only place that knows.

    A placement is ``<bos>`` if documents open with one and a sentinel, then each of its spans between an opening and a
    closing sentinel, then ``<eos>``. Of an absent span the offsets mean nothing.

    Attributes:
        prefix: symbols before the one that opens the first span: 1 with ``<bos><raw>``, else 0.
        two: whether there is a second span, shape ``(n,)``.
        text: where the text of each span begins, shape ``(2, n)``.
        close: the closing sentinel of each span, shape ``(2, n)``.
    """

    prefix: int
    two: np.ndarray
    text: np.ndarray
    close: np.ndarray

    @classmethod
    def of(cls, spans: Segments, opening: int) -> "Offsets":
        """The offsets of placements made of ``spans``; ``opening`` symbols open each, the first sentinel among them."""
        first, second = spans.length
        text = np.stack([np.full_like(first, opening), opening + first + 2])
        return cls(opening - 1, spans.view[1] >= 0, text, text + np.stack([first, second]))

    @property
    def open(self) -> np.ndarray:
        """The opening sentinel of each span, shape ``(2, n)``."""
        return self.text - 1

    @property
    def last_close(self) -> np.ndarray:
        """The closing sentinel of the last span, shape ``(n,)``."""
        return np.where(self.two, self.close[1], self.close[0])

    @property
    def eos(self) -> np.ndarray:
        """``<eos>``, shape ``(n,)``."""
        return self.last_close + 1

    @property
    def length(self) -> np.ndarray:
        """Symbols that each placement takes in the stream, shape ``(n,)``."""
        return self.eos + 1
