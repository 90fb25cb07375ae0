"""The document's own bits, regrouped: 1, 2, 4, 8 or 16 to a symbol. Nothing is compressed but the sequence's length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from proxybyte.errors import ProxyByteError

from .protocol import PUBLISHED, CannotEncode, check_codes, code_dtype, read_folder, write_folder

WIDTHS = (1, 2, 4, 8, 16)


class RegroupCompressor:
    """``width`` bits to a symbol, the highest bits first.

    A byte is 8, 4, 2 or 1 symbols of 1, 2, 4 or 8 bits (of 8: the bytes again, as compressed symbols). Two bytes are
    one symbol of 16 bits; there the last symbol of every document says how it ends, ``0x0000`` after whole pairs or
    ``0xBB01`` with the odd last byte ``BB``, so that any length and trailing NULs come back out of 65,536 symbols.

    Args:
        width: bits in a symbol.
        published: of 16 bits, write no such last symbol, as the published code does not: an odd last byte is followed
            by a NUL, which nothing tells from one in the text.
    """

    family = "bits"

    def __init__(self, width: int, *, published: bool = False) -> None:
        if width not in WIDTHS:
            raise ProxyByteError(f"bits-{width}: a symbol has {', '.join(map(str, WIDTHS))} bits")
        if published and width != 16:
            raise ProxyByteError(f"bits-{width}: has one form; the published one differs in symbols of 16 bits alone")
        self.width, self.published = width, published
        self.name = f"bits-{width}" + (f"-{PUBLISHED}" if published else "")
        self.lossless = not published
        self.num_symbols = 1 << width
        self._shifts = np.arange(8 - width, -1, -width).astype(np.uint8)

    @classmethod
    def from_name(cls, name: str) -> Self:
        """The instance called ``"bits-WIDTH"`` or ``"bits-16-published"``."""
        width, _, form = name.removeprefix("bits-").partition("-")
        return cls(int(width), published=form == PUBLISHED)

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """See :class:`~.protocol.Compressor`."""
        return [self._pairs(document) if self.width == 16 else self._parts(document) for document in documents]

    def _parts(self, document: bytes) -> np.ndarray:
        values = np.frombuffer(document, dtype=np.uint8)
        return ((values[:, None] >> self._shifts) & np.uint8(self.num_symbols - 1)).ravel()

    def _pairs(self, document: bytes) -> np.ndarray:
        if self.published:
            return np.frombuffer(document + b"\0" * (len(document) % 2), dtype=">u2").astype(
                code_dtype(self.num_symbols)
            )
        end = document[-1:] + b"\x01" if len(document) % 2 else b"\x00\x00"
        pairs = document[: len(document) // 2 * 2] + end
        return np.frombuffer(pairs, dtype=">u2").astype(code_dtype(self.num_symbols))

    def decode(self, codes: np.ndarray) -> bytes:
        """See :class:`~.protocol.Compressor`."""
        codes = check_codes(codes, self.num_symbols, self.name)
        if self.width == 16:
            return self._decode_pairs(codes)
        per_byte = 8 // self.width
        if len(codes) % per_byte:
            raise ProxyByteError(f"{self.name}: {len(codes)} codes are no whole number of bytes ({per_byte} to a byte)")
        parts = codes.astype(np.uint8).reshape(-1, per_byte)
        values = np.zeros(len(parts), dtype=np.uint8)
        for place, shift in enumerate(self._shifts):
            values |= parts[:, place] << shift
        return values.tobytes()

    def _decode_pairs(self, codes: np.ndarray) -> bytes:
        pairs = codes.astype(">u2").tobytes()
        if self.published:
            return pairs
        if pairs[-2:] == b"\x00\x00":
            return pairs[:-2]
        if pairs[-1:] == b"\x01":
            return pairs[:-1]
        raise ProxyByteError(f"{self.name}: the last of {len(codes)} codes does not end a document")

    def borders(self, codes: np.ndarray) -> np.ndarray | None:
        """See :class:`~.protocol.Compressor`; none in the published form, which does not say how long the text is."""
        codes = check_codes(codes, self.num_symbols, self.name)
        if self.published:
            return None
        ends = np.arange(1, len(codes) + 1, dtype=np.int64) * self.width // 8
        if self.width == 16 and len(codes):
            ends[-1] -= 2 - int(codes[-1] & 1)
        return ends

    def save(self, folder: Path) -> None:
        """See :class:`~.protocol.Compressor`."""
        write_folder(folder, self.family, {}, width=self.width, **({"form": PUBLISHED} if self.published else {}))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See :class:`~.protocol.Compressor`."""
        manifest, _ = read_folder(folder, cls.family, [])
        return cls(manifest.get("width", 0), published=manifest.get("form") == PUBLISHED)
