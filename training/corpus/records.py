"""What a reader yields: documents, and what it had to leave out."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from proxybyte.errors import ProxyByteError
from proxybyte.errors import nearest as nearest_name

MEGABYTE = 1_000_000


class Reason(StrEnum):
    """Why something is not in the corpus. A fault is what ``--strict`` stops at."""

    BROKEN_JSON = "broken JSON"
    NOT_AN_OBJECT = "not a JSON object"
    NOT_UTF8 = "not UTF-8"
    MISSING_COLUMN = "missing column"
    NOT_TEXT = "text is no string"
    BAD_KEY = "key is no string or integer"
    LONE_SURROGATE = "lone surrogate"
    EMPTY_TEXT = "empty text"
    TOO_LONG = "too long"
    UNREADABLE = "unreadable file"
    EMPTY_FILE = "empty file"
    LINKED_FOLDER = "linked folder, not followed"

    @property
    def is_fault(self) -> bool:
        """Empty files and linked folders are ordinary in source trees; everything else is a fault."""
        return self not in (Reason.EMPTY_FILE, Reason.LINKED_FOLDER)


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        text: its bytes, never empty.
        source: where it came from: ``numpy/linalg/linalg.py`` or ``lines.jsonl.gz:17``.
        key: documents of one key go to the same split (the top-level package, or the value of the key column);
            ``None`` for a document that is its own group.
    """

    text: bytes
    source: str
    key: str | None


@dataclass(frozen=True)
class Skip:
    """Something that a reader left out; ``detail`` may be empty."""

    source: str
    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class TextRules:
    """What readers of every kind take as a document.

    Attributes:
        text_column: column of tables that holds the text.
        key_column: column of tables whose value keeps documents together in one split; ``None`` for no such column.
        by_document: give no keys at all, so that every document is split on its own.
        max_bytes: a document, or a line of JSON, that is longer is left out.
    """

    text_column: str = "text"
    key_column: str | None = None
    by_document: bool = False
    max_bytes: int = 10 * MEGABYTE

    def refuses(self, text: bytes) -> tuple[Reason, str] | None:
        """Why ``text`` cannot be a document, or ``None`` if it can."""
        if not text:
            return Reason.EMPTY_TEXT, ""
        if len(text) > self.max_bytes:
            return Reason.TOO_LONG, f"{len(text):,} bytes, at most {self.max_bytes:,}"
        return None


Advance = Callable[[int], None]
"""Called with the number of stored bytes read since the last call; moves the progress bar."""


class Reader(Protocol):
    """One source. Reading twice gives the same items in the same order."""

    def stored_bytes(self) -> int:
        """Bytes on disk, the total for the progress bar."""
        ...

    def read(self, advance: Advance) -> Iterator[Document | Skip]:
        """Yield every document and everything left out.

        Raises:
            ProxyByteError: if the source as a whole cannot be read: a damaged archive, an unknown column.
        """
        ...


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the known name nearest to ``name``, or all of them where none is near."""
    names = [str(each) for each in known]
    if close := nearest_name(name, names):
        return f"did you mean '{close}'?"
    return f"there are: {', '.join(names[:20])}" if names else "there are none"


def unknown_column(where: str, column: str, known: Iterable[str]) -> ProxyByteError:
    """The error for a column that a whole table lacks."""
    return ProxyByteError(f"{where} has no column '{column}'; {nearest(column, known)}")


def printable(name: str) -> str:
    """A file's name as valid Unicode: on disk it may be any bytes, in a column of strings it may not."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def damaged(where: str, error: Exception) -> ProxyByteError:
    """The error for a file that its own format calls damaged."""
    return ProxyByteError(f"{where} cannot be read: {first_line(error)}; fetch or write the file again")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
