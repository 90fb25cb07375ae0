"""What a reader yields: documents, and what it had to leave out."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

from proxybyte.errors import ProxyByteError
from proxybyte.errors import nearest as nearest_name
from proxybyte.numbers import MEGABYTE

DEFAULT_SUFFIXES = (".py",)
"""Endings of the files that are taken from folders, where none are named."""
DIGEST_BYTES = 16
PART_BYTES = 64 * MEGABYTE
"""About how much of a source one part of it holds, where it can be cut (:meth:`Reader.parts`)."""


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
    PASSED_OVER = "passed over"
    """Files of an ending that was not asked for, and folders that hold no documents; counted by ending."""

    @property
    def is_fault(self) -> bool:
        """Empty files, linked folders and other endings are ordinary in source trees; everything else is a fault."""
        return self not in (Reason.EMPTY_FILE, Reason.LINKED_FOLDER, Reason.PASSED_OVER)


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        text: its bytes, never empty.
        source: where it came from: ``numpy/linalg/linalg.py`` or ``lines.jsonl.gz:17``.
        key: documents of one key go to the same split (the top-level package, or the value of the key column);
            ``None`` for a document that is its own group.
        whole: of a piece, the digest of the document that it was cut from: pieces of one document go to the same
            split too.
    """

    text: bytes
    source: str
    key: str | None
    whole: bytes | None = None


def digest_of(text: bytes) -> bytes:
    """Hash by which documents count as equal."""
    return blake2b(text, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True)
class Skip:
    """Something that a reader left out, or ``count`` things of one kind; ``detail`` may be empty."""

    source: str
    reason: Reason
    detail: str = ""
    count: int = 1

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

    def __post_init__(self) -> None:
        if not self.text_column or self.key_column == "":
            raise ProxyByteError("--text-column and --key-column name a column: they must not be empty")
        if self.max_bytes < 1:
            raise ProxyByteError("--max-document-mb must be at least one byte")

    def refuses(self, text: bytes) -> tuple[Reason, str] | None:
        """Why ``text`` cannot be a document, or ``None`` if it can."""
        if not text:
            return Reason.EMPTY_TEXT, ""
        if len(text) > self.max_bytes:
            return Reason.TOO_LONG, f"{len(text):,} bytes, at most {self.max_bytes:,}"
        return None


class LeftOut:
    """Counts everything left out, and keeps the first ``limit`` faults to show.

    Attributes:
        counts: how many lines or files, by reason.
        passed_over: how many files of an ending that was not asked for, by ending; folders end in ``/``.
        examples: the first faults, each with its place and reason.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self.counts: dict[str, int] = {}
        self.passed_over: dict[str, int] = {}
        self.examples: list[str] = []

    def add(self, skip: Skip) -> None:
        """Count ``skip``."""
        by, name = (
            (self.passed_over, skip.detail) if skip.reason is Reason.PASSED_OVER else (self.counts, skip.reason.value)
        )
        by[name] = by.get(name, 0) + skip.count
        if skip.reason.is_fault and len(self.examples) < self._limit:
            self.examples.append(str(skip).encode("utf-8", "backslashreplace").decode("utf-8"))

    def merge(self, other: "LeftOut") -> None:
        """Count what ``other`` counted, behind what is counted here."""
        for mine, theirs in ((self.counts, other.counts), (self.passed_over, other.passed_over)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self.examples += other.examples[: self._limit - len(self.examples)]

    def lines(self) -> list[str]:
        """One line for each reason, one for what was passed over, and the first five faults."""
        return left_out_lines(self.counts, self.passed_over, self.examples)

    def nothing_else(self, where: str) -> ProxyByteError:
        """The error for sources in which everything was left out."""
        found = "; ".join(" ".join(line.split()) for line in self.lines())
        return ProxyByteError(f"no text in {where}: the sources hold no document; {found or 'they hold nothing'}")


_LISTED_ENDINGS = 20


def left_out_lines(counts: Mapping[str, int], passed_over: Mapping[str, int], examples: Sequence[str]) -> list[str]:
    """What :meth:`LeftOut.lines` prints, from counts that were saved."""
    lines = [f"left out          {count:>12,}  {reason}" for reason, count in _by_count(counts)]
    for what, ending in (("files", False), ("folders", True)):
        these = {name: count for name, count in passed_over.items() if name.endswith("/") is ending}
        if these:
            lines.append(f"passed over       {sum(these.values()):>12,}  {what}: {listed(these)}")
    return [*lines, *(f"  {example}" for example in examples[:5])]


def listed(endings: Mapping[str, int]) -> str:
    """Counts by ending in one line, the most frequent first: ``3 .md, 1 .png``."""
    ranked = _by_count(endings)
    rest = ranked[_LISTED_ENDINGS:]
    parts = [f"{count:,} {name}" for name, count in ranked[:_LISTED_ENDINGS]]
    return ", ".join([*parts, *([f"{sum(count for _, count in rest):,} of {len(rest)} other endings"] if rest else [])])


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


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

    def parts(self) -> Sequence["Reader"]:
        """Readers that, one after the other, yield what this one does; one that cannot be cut gives itself."""
        ...

    def identity(self) -> str:
        """What is read, and what tells without reading whether it is still the same: names, sizes, times."""
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
