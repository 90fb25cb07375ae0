"""gzip, the negative control: short codes that change everywhere when the text changes anywhere."""

import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from proxybyte.errors import ProxyByteError

from .protocol import PUBLISHED, CannotEncode, check_codes, encode_in_threads, read_folder, write_folder

LEVEL = 9
_GZIP_FORMAT = 31
_OPERATING_SYSTEM = 9
"""Place of the header's byte that says where it was written (RFC 1952)."""
_UNKNOWN_SYSTEM, _UNIX = 255, 3


class GzipCompressor:
    """A document as the bytes of its gzip file, without time stamp or name; symbol ``b`` is byte ``b``.

    The same document gives the same code wherever zlib is the same (builds of zlib differ in their matches).

    Args:
        published: say in the header that it was written on Unix, as the published code does on such machines, and not
            that this is unknown.
    """

    family = "gzip"
    num_symbols = 256
    lossless = True

    def __init__(self, *, published: bool = False) -> None:
        self.published = published
        self.name = f"gzip-{PUBLISHED}" if published else "gzip"

    @classmethod
    def from_name(cls, name: str) -> Self:
        """The instance ``"gzip"`` or ``"gzip-published"``."""
        return cls(published=name.endswith(PUBLISHED))

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """See :class:`~.protocol.Compressor`."""
        return encode_in_threads(partial(_compress, _UNIX if self.published else _UNKNOWN_SYSTEM), documents)

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
        write_folder(folder, self.family, {}, **({"form": PUBLISHED} if self.published else {}))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See :class:`~.protocol.Compressor`."""
        manifest, _ = read_folder(folder, cls.family, [])
        return cls(published=manifest.get("form") == PUBLISHED)


def _compress(system: int, document: bytes) -> np.ndarray:
    stream = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    codes = np.frombuffer(stream.compress(document) + stream.flush(), dtype=np.uint8).copy()
    codes[_OPERATING_SYSTEM] = system
    return codes
