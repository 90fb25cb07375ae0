"""Placements: documents in the forms in which they stand in the stream, and the spans that each form is made of."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

HAND_OFF_PARTS = 16
"""A document turns from one view to the other at multiples of one sixteenth of its symbols."""
STARTS_COMPRESSED = 1 << (HAND_OFF_PARTS - 1)
"""In the ``part`` of a switched document, beside bit ``j - 1`` for each sixteenth ``j`` at which it switches."""


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
    SWITCHED = 7
    """Stretches of it in turn raw and compressed (code-switching, arXiv 2504.01801)."""


_VIEWS_OF_FORM = np.array([[0, 1, 0, 1, 1, 0, 1, -1], [-1, -1, 1, 0, 0, -1, -1, -1]], np.int8)
"""First and second span of each form: 0 raw, 1 compressed, -1 none; those of a switched document are its own."""


@dataclass(frozen=True)
class Lengths:
    """What a plan knows of the documents.

    Attributes:
        n_bytes: shape ``(documents,)``, bytes.
        n_symbols: shape ``(documents,)``, compressed symbols; -1 where a document can only be raw.
        borders: shape ``(documents, 15)``, byte offset at each sixteenth of the symbols; needed for hand-offs
            and switched documents only.
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
        part: for a hand-off, the sixteenth (1 to 15) at which it turns raw; for a switched document a mask of those
            at which it switches, and :data:`STARTS_COMPRESSED`; else 0; uint16.
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
    """The spans of each placement: ``view`` 0 raw, 1 compressed, -1 absent; arrays of shape ``(K, n)``.

    ``K`` is 2, or 16 where a document is switched. ``begin`` and ``length`` count bytes in a raw span and symbols in a
    compressed one, ``text_bytes`` the bytes of text that either shows. Absent spans come last, and are empty.
    """

    view: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    text_bytes: np.ndarray


def segments(lengths: Lengths, document: np.ndarray, form: np.ndarray, part: np.ndarray) -> Segments:
    """Spans of documents in given forms; arrays of shape ``(n,)`` in, ``(K, n)`` out."""
    n_bytes = lengths.n_bytes[document].astype(np.int64)
    n_symbols = np.maximum(lengths.n_symbols[document], 0).astype(np.int64)
    view = _VIEWS_OF_FORM[:, form]
    begin = np.zeros(view.shape, np.int64)
    length = np.where(view == 1, n_symbols, n_bytes) * (view >= 0)
    text_bytes = n_bytes * (view >= 0)
    cut = np.flatnonzero(form == Form.HAND_OFF)
    if len(cut):
        assert lengths.borders is not None
        border = lengths.borders[document[cut], part[cut].astype(np.int64) - 1].astype(np.int64)
        length[0][cut] = n_symbols[cut] * part[cut] // HAND_OFF_PARTS
        begin[1][cut] = border
        length[1][cut] = n_bytes[cut] - border
        text_bytes[0][cut], text_bytes[1][cut] = border, length[1][cut]
    spans = Segments(view, begin, length, text_bytes)
    switched = np.flatnonzero(form == Form.SWITCHED)
    return _with_switched(spans, switched, lengths, document, part) if len(switched) else spans


def _with_switched(
    spans: Segments, switched: np.ndarray, lengths: Lengths, document: np.ndarray, part: np.ndarray
) -> Segments:
    """``spans`` with those of the placements ``switched``: the sixteenths between two switches make one span."""
    assert lengths.borders is not None
    chosen, parts = document[switched], part[switched].astype(np.int64)
    n_symbols = lengths.n_symbols[chosen].astype(np.int64)[:, None]
    symbols = n_symbols * np.arange(HAND_OFF_PARTS + 1) // HAND_OFF_PARTS
    n_bytes = lengths.n_bytes[chosen].astype(np.int64)[:, None]
    texts = np.concatenate([np.zeros_like(n_bytes), lengths.borders[chosen].astype(np.int64), n_bytes], axis=1)
    switches = parts[:, None] >> np.arange(HAND_OFF_PARTS - 1) & 1
    # The sixteenth at which each span begins; 16, where the document ends, for absent ones and behind the last.
    edges = np.full((len(chosen), HAND_OFF_PARTS + 1), HAND_OFF_PARTS)
    edges[:, 0] = 0
    where, sixteenth = np.nonzero(switches)
    edges[where, np.cumsum(switches, axis=1)[where, sixteenth]] = sixteenth + 1
    first, last = edges[:, :-1], edges[:, 1:]
    there = np.arange(HAND_OFF_PARTS) <= switches.sum(axis=1, keepdims=True)
    view = np.where(there, (np.arange(HAND_OFF_PARTS) + (parts[:, None] >= STARTS_COMPRESSED)) % 2, -1)
    begin, end = (
        np.where(view == 1, np.take_along_axis(symbols, at, 1), np.take_along_axis(texts, at, 1)) * there
        for at in (first, last)
    )
    shown = np.diff(np.take_along_axis(texts, edges, 1), axis=1)
    wide = [np.full((HAND_OFF_PARTS, len(document)), fill, np.int64) for fill in (-1, 0, 0, 0)]
    narrow = (spans.view, spans.begin, spans.length, spans.text_bytes)
    for column, some, own in zip(wide, narrow, (view, begin, end - begin, shown), strict=True):
        column[: len(some)] = some
        column[:, switched] = own.T
    return Segments(*wide)


@dataclass(frozen=True)
class Offsets:
    """Where the symbols of placements lie, counted from the first symbol of each; the only place that knows.

    A placement is ``<bos>`` if documents open with one and a sentinel, then each of its spans between an opening and a
    closing sentinel, then ``<eos>``. Of an absent span the offsets mean nothing.

    Attributes:
        prefix: symbols before the one that opens the first span: 1 with ``<bos><raw>``, else 0.
        there: whether there is such a span, shape ``(K, n)``.
        text: where the text of each span begins, shape ``(K, n)``.
        close: the closing sentinel of each span, shape ``(K, n)``.
    """

    prefix: int
    there: np.ndarray
    text: np.ndarray
    close: np.ndarray

    @classmethod
    def of(cls, spans: Segments, opening: int) -> "Offsets":
        """The offsets of placements made of ``spans``; ``opening`` symbols open each, the first sentinel among them."""
        before = np.cumsum(spans.length + 2, axis=0) - (spans.length + 2)
        text = opening + before
        return cls(opening - 1, spans.view >= 0, text, text + spans.length)

    @property
    def open(self) -> np.ndarray:
        """The opening sentinel of each span, shape ``(K, n)``."""
        return self.text - 1

    @property
    def last_close(self) -> np.ndarray:
        """The closing sentinel of the last span, shape ``(n,)``."""
        return np.take_along_axis(self.close, self.there.sum(axis=0, keepdims=True) - 1, 0)[0]

    @property
    def eos(self) -> np.ndarray:
        """``<eos>``, shape ``(n,)``."""
        return self.last_close + 1

    @property
    def length(self) -> np.ndarray:
        """Symbols that each placement takes in the stream, shape ``(n,)``."""
        return self.eos + 1
