"""What every compressor is: bytes in, integers out, and a folder that carries it.

Codes are numbered from 0 here; the stream places code ``c`` at symbol ``320 + c`` (``proxybyte.symbols``). A
compressor's folder holds ``compressor.json`` with at least ``{"family": ...}`` and whatever files the family needs;
:func:`proxybyte.training.compressors.load_compressor` reads it back. Nothing is ever pickled.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np

from proxybyte.errors import ProxyByteError

MANIFEST = "compressor.json"


class CannotEncode(ProxyByteError):
    """This document would not come back from its code unchanged; the message says why."""


@runtime_checkable
class Compressor(Protocol):
    """One way to write text in fewer symbols.

    Attributes:
        family: key of the class in the registry, for example ``"bpe"``; written to the folder's manifest.
        name: what people call this instance, for example ``"bpe-16384"``; appears in tables and run names.
        num_symbols: codes lie in ``0 .. num_symbols - 1``.
        lossless: whether ``decode(encode(x)) == x`` for every ``x`` that ``encode`` accepts.
    """

    family: str
    name: str
    num_symbols: int
    lossless: bool

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """Code each document; never raises for a document's content.

        Returns:
            For each document a one-dimensional array of :func:`code_dtype` codes, or the :class:`CannotEncode` that
            says why it has none (the caller falls back to raw bytes for that document, and counts it).
        """
        ...

    def decode(self, codes: np.ndarray) -> bytes:
        """Bytes of one document.

        Raises:
            ProxyByteError: if a code is out of range, the codes spell nothing, or the family cannot decode.
        """
        ...

    def borders(self, codes: np.ndarray) -> np.ndarray | None:
        """Byte offset at the end of each symbol, shape ``(len(codes),)``, non-decreasing, last one = total bytes.

        ``None`` where symbols do not end at byte borders (gzip); such a compressor offers no hand-off documents.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the compressor into ``folder`` (made if absent)."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ProxyByteError: if a file is missing, truncated or of another family; the message names it.
        """
        ...


def code_dtype(num_symbols: int) -> type[np.unsignedinteger]:
    """Smallest unsigned type that holds codes ``0 .. num_symbols - 1``."""
    for dtype in (np.uint8, np.uint16):
        if num_symbols <= np.iinfo(dtype).max + 1:
            return dtype
    return np.uint32


def encode_one(compressor: Compressor, document: bytes) -> np.ndarray:
    """Code one document.

    Raises:
        CannotEncode: if the compressor cannot code it without loss.
    """
    (code,) = compressor.encode_batch([document])
    if isinstance(code, CannotEncode):
        raise code
    return code
