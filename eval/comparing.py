"""Where two byte models differ: bits per byte on the same bytes, and the bytes on which they differ most."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from proxybyte.eval.scoring import bare, position_limit
from proxybyte.eval.surprisal import byte_bits
from proxybyte.progress import Progress
from proxybyte.symbols import document_opening

_BEFORE = 24


class ByteKind(StrEnum):
    """Kinds of bytes, as people look at text."""

    LETTER = "letters"
    DIGIT = "digits"
    SPACE = "spaces"
    LINE_FEED = "line feeds"
    OTHER_ASCII = "other ASCII"
    BEYOND_ASCII = "beyond ASCII"


def kind_of(byte: int) -> ByteKind:
    """Of one byte value."""
    letter = bytes([byte])
    if byte >= 128:
        return ByteKind.BEYOND_ASCII
    if letter == b"\n":
        return ByteKind.LINE_FEED
    if letter.isspace():
        return ByteKind.SPACE
    if letter.isalpha():
        return ByteKind.LETTER
    return ByteKind.DIGIT if letter.isdigit() else ByteKind.OTHER_ASCII


_KINDS = list(ByteKind)
_KIND_OF = np.array([_KINDS.index(kind_of(byte)) for byte in range(256)])


@dataclass(frozen=True)
class Place:
    """A byte.

    Attributes:
        document, offset: where it stands.
        before: up to 24 bytes before it.
        byte: its value.
        bits: what it costs the first model and the second.
    """

    document: int
    offset: int
    before: bytes
    byte: int
    bits: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same bytes.

    Attributes:
        texts: the documents' beginnings that both read.
        bits: of each byte of each document, for both models, float64, shape ``(2, len(text))``.
    """

    texts: Sequence[bytes]
    bits: Sequence[np.ndarray]

    @property
    def n_bytes(self) -> int:
        """Of all documents."""
        return sum(map(len, self.texts))

    @property
    def bits_per_byte(self) -> tuple[float, float]:
        """Of the first model and of the second."""
        first, second = np.sum([bits.sum(axis=1) for bits in self.bits], axis=0) / self.n_bytes
        return float(first), float(second)

    @property
    def first_is_better(self) -> int:
        """Documents that cost the first model fewer bits."""
        return sum(bool(bits[0].sum() < bits[1].sum()) for bits in self.bits)

    def by_kind(self) -> dict[ByteKind, tuple[int, float, float]]:
        """Bytes of each kind that occurs, and the mean bits of them for both models."""
        kinds = _KIND_OF[np.frombuffer(b"".join(self.texts), np.uint8)]
        bits = np.concatenate(list(self.bits), axis=1)
        found = {}
        for number, kind in enumerate(_KINDS):
            mine = kinds == number
            if mine.any():
                first, second = bits[:, mine].mean(axis=1)
                found[kind] = (int(mine.sum()), float(first), float(second))
        return found

    def most_different(self, count: int) -> list[Place]:
        """The ``count`` bytes whose bits differ most, the largest difference first, earlier ones first among equals."""
        bits = np.concatenate(list(self.bits), axis=1)
        starts = np.cumsum([0, *map(len, self.texts)])
        order = np.argsort(-np.abs(bits[0] - bits[1]), kind="stable")[:count]
        places = []
        for place in order.tolist():
            document = int(np.searchsorted(starts, place, side="right")) - 1
            offset = place - int(starts[document])
            text = self.texts[document]
            both = float(bits[0, place]), float(bits[1, place])
            places.append(Place(document, offset, text[max(0, offset - _BEFORE) : offset], text[offset], both))
        return places


def compare_models(first: Any, second: Any, texts: Sequence[bytes], max_bytes: int | None = None) -> Comparison:
    """Score the beginning of each document with both models.

    Args:
        first: a byte model.
        second: another.
        texts: documents; empty ones are left out.
        max_bytes: of each document; what both contexts hold, if that is less.
    """
    room = [position_limit(bare(model)) - len(document_opening(bare(model).config)) for model in (first, second)]
    longest = min(room if max_bytes is None else [*room, max_bytes])
    heads = [text[:longest] for text in texts if text]
    bits = []
    for head in Progress(heads, desc="comparing", unit="document"):
        bits.append(np.stack([byte_bits(model, head) for model in (first, second)]))
    return Comparison(heads, bits)
