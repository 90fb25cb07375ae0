"""gzip, the negative control: short codes that change everywhere when the text changes anywhere."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from proxybyte.errors import ProxyByteError

from .protocol import CannotEncode, check_codes, encode_in_threads
from .storage import read_folder, write_folder

LEVEL = 9
_GZIP_FORMAT = 31
_OPERATING_SYSTEM = 9
"""Place of the header's byte that says where it was written; 255 is "unknown" (RFC 1952)."""


class GzipCompressor:
    """A document as the bytes of its gzip file, without time stamp or name; symbol ``b`` is byte ``b``.

    The same document gives the same code wherever zlib is the same (builds of zlib differ in their matches).
    """

    family = "gzip"
    name = "gzip"
    num_symbols = 256
    lossless = True

    @classmethod
    def from_name(cls, name: str) -> Self:
        """The one instance, ``"gzip"``."""
        return cls()

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """See :class:`~.protocol.Compressor`."""
        return encode_in_threads(_compress, documents)

    def decode(self, codes: np.ndarray) -> bytes:
        """See :class:`~.protocol.Compressor`."""
        data = check_codes(codes, self.num_symbols, self.name).astype(np.uint8).tobytes()
        stream = zlib.decompressobj(_GZIP_FORMAT)
        try:
            text = stream.decompress(data)
        except zlib.error as error:
            raise ProxyByteError(f"gzip: the {len(data)} codes are no gzip file ({error})") from None
        if not stream.eof:
            raise ProxyByteError(f"gzip: the {len(data)} codes are cut short")
        if stream.unused_data:
            raise ProxyByteError(f"gzip: {len(stream.unused_data)} codes follow the end of the file")
        return text

    def borders(self, codes: np.ndarray) -> None:
        """None: a symbol holds parts of many bytes."""
        return

    def save(self, folder: Path) -> None:
        """See :class:`~.protocol.Compressor`."""
        write_folder(folder, self.family, {})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See :class:`~.protocol.Compressor`."""
        read_folder(folder, cls.family, [])
        return cls()


def _compress(document: bytes) -> np.ndarray:
    stream = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    codes = np.frombuffer(stream.compress(document) + stream.flush(), dtype=np.uint8).copy()
    codes[_OPERATING_SYSTEM] = 255
    return codes
