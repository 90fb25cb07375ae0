"""Files as readers open them: plain, gzip or Zstandard, with an error that names the one that is damaged."""

import io
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import zstandard

from proxybyte.errors import ProxyByteError
from proxybyte.training.remote import identity
from proxybyte.training.texts.records import Advance, Document, Reader, Skip, TextRules, damaged, printable

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
BLOCK = 1 << 18
_SMALLEST_SLICE, _LARGEST_SLICE = 1 << 6, 1 << 12
"""Stored bytes given to a decompressor at once: more while they become little text. At the worst ratio of Zstandard,
which is met when the smallest slice is due, they become 2 MB."""
_LONGEST_WINDOW = 1 << 31
"""What ``zstd --long=31`` needs; the library's own limit is 2^27."""


def open_stored(stored: BinaryIO, path: Path) -> BinaryIO:
    """Buffered stream of what ``stored`` holds, decompressed as the file's suffix says.

    Members and frames that follow each other are one text, as gzip and zstd read them; so are skippable frames, and
    the zeros that tapes and block devices leave behind a gzip file.

    Raises:
        ProxyByteError: if the file is empty, which no compressed one is.
        OSError: while reading, if it is damaged or ends within a member.
    """
    codec = COMPRESSIONS.get(path.suffix.lower())
    if codec is None:  # a file beyond this machine reads no lines of bounded length
        return stored if isinstance(stored, io.BufferedReader) else cast(BinaryIO, io.BufferedReader(stored, BLOCK))
    if path.stat().st_size == 0:
        raise ProxyByteError(f"{path} is empty, which is no {codec} file: write it again")
    return cast(BinaryIO, io.BufferedReader(_Decompressed(stored, codec), BLOCK))


class _Decompressed(io.RawIOBase):
    """The text of a compressed stream, member by member."""

    def __init__(self, stored: BinaryIO, codec: str) -> None:
        self._stored, self._codec = stored, codec
        self._member: Any = None
        self._given = memoryview(b"")
        """Stored bytes that no decompressor has seen yet."""
        self._slice = _SMALLEST_SLICE
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._text:
            if not self._given:
                self._given = memoryview(self._stored.read(BLOCK))
                if not self._given:
                    if self._member is not None:
                        raise OSError("it ends before its text does")
                    return 0
            self._text = memoryview(self._next())
        size = min(len(buffer), len(self._text))
        buffer[:size] = self._text[:size]
        self._text = self._text[size:]
        return size

    def _next(self) -> bytes:
        """What the next stored bytes become, which may be nothing."""
        if self._member is None:
            if self._codec == "gzip" and not self._given[0]:
                self._given = memoryview(bytes(self._given).lstrip(b"\0"))
                return b""
            self._member = _new_member(self._codec)
        piece = self._given[: self._slice]
        try:
            text = self._member.decompress(piece)
        except (zlib.error, zstandard.ZstdError) as error:
            raise OSError(str(error)) from error
        self._given = self._given[len(piece) - len(self._member.unused_data) :]
        if self._member.eof:
            self._member = None
        dense = len(text) > BLOCK
        self._slice = _SMALLEST_SLICE if dense else min(2 * self._slice, _LARGEST_SLICE)
        return text


def _new_member(codec: str) -> Any:
    """Both kinds have ``decompress``, ``eof`` and ``unused_data``."""
    if codec == "gzip":
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    return zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW).decompressobj()


class FileReader(ABC):
    """Documents of one file.

    Args:
        path: the file.
        rules: what counts as a document.
        name: what ``source`` calls it; the file's own name if empty.

    Attributes:
        unreadable: errors that say that the file cannot be read on.
    """

    unreadable: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def __init__(self, path: Path, rules: TextRules, name: str = ""):
        self._path = path
        self._rules = rules
        self._name = name or printable(path.name)

    def stored_bytes(self) -> int:
        """Bytes of the file as it lies on disk."""
        return self._path.stat().st_size

    def read(self, advance: Advance) -> Iterator[Document | Skip]:
        """Every document, and what is left out and why.

        Raises:
            ProxyByteError: if the file is damaged.
        """
        try:
            yield from self._read(advance)
        except self.unreadable as error:
            raise damaged(str(self._path), error) from error

    def parts(self) -> Sequence[Reader]:
        """See :class:`~.records.Reader`."""
        return [self]

    def identity(self) -> str:
        """See :class:`~.records.Reader`."""
        return f"{self._name} {identity(self._path)}"

    @abstractmethod
    def _read(self, advance: Advance) -> Iterator[Document | Skip]: ...
