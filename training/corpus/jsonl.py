"""Reader of JSON lines: plain, .gz or .zst."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from proxybyte.errors import ProxyByteError
from proxybyte.training.corpus.file_reader import FileReader
from proxybyte.training.corpus.records import (
    Advance,
    Document,
    Reason,
    Skip,
    TextRules,
    damaged,
    nearest,
    printable,
    unknown_column,
)

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_BLOCK = 1 << 20
_PATIENCE = 100
"""Lines that may lack a column before a file in which no line has it is given up: the name is wrong."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonLinesReader(FileReader):
    """One document a line that is not blank, from the text column of a JSON object."""

    def _read(self, advance: Advance) -> Iterator[Document | Skip]:
        columns, name = _ColumnWatch(self._path, self._rules), printable(self._path.name)
        for number, line in self._lines(advance):
            source = f"{name}:{number}"
            if line is None:
                yield Skip(source, Reason.TOO_LONG, f"a line of more than {self._rules.max_bytes:,} bytes")
            elif line.strip():
                yield self._read_line(source, line, columns)
        columns.finish()

    def _lines(self, advance: Advance) -> Iterator[tuple[int, bytes | None]]:
        """Numbered lines from 1; ``None`` for one that is too long, of which only a part is ever in memory.

        Raises:
            ProxyByteError: if the archive is truncated or damaged.
        """
        limit = self._rules.max_bytes + 1  # the line break
        seen = number = 0
        with self._path.open("rb") as stored:
            stream = open_stored(stored, self._path)
            while True:
                number += 1
                try:
                    line = stream.readline(limit)
                    whole = len(line) < limit or line.endswith(b"\n")
                    rest = not whole
                    while rest:
                        piece = stream.readline(_BLOCK)
                        rest = bool(piece) and not piece.endswith(b"\n")
                except OSError as error:
                    raise damaged(f"{self._path}, line {number},", error) from error
                if not line:
                    return
                yield number, (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line) if whole else None
                position = stored.tell()
                advance(position - seen)
                seen = position

    def _read_line(self, source: str, line: bytes, columns: "_ColumnWatch") -> Document | Skip:
        try:
            record = json.loads(line.rstrip(b"\r\n").decode("utf-8"))
        except UnicodeDecodeError as error:
            return Skip(source, Reason.NOT_UTF8, f"byte {error.start} of the line")
        except json.JSONDecodeError as error:
            return Skip(source, Reason.BROKEN_JSON, f"{error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:  # an integer of thousands of digits; brackets nested too deep
            return Skip(source, Reason.BROKEN_JSON, str(error).partition(":")[0])
        if not isinstance(record, dict):
            return Skip(source, Reason.NOT_AN_OBJECT, f"it is {_kind(record)}")
        missing = columns.look_at(record)
        if missing:
            return Skip(source, Reason.MISSING_COLUMN, f"'{missing}'; {nearest(missing, record)}")
        value, key = record[self._rules.text_column], None
        if not isinstance(value, str):
            return Skip(source, Reason.NOT_TEXT, f"it is {_kind(value)}")
        if self._rules.key_column is not None:
            key = record[self._rules.key_column]
            if isinstance(key, bool) or not isinstance(key, str | int):
                return Skip(source, Reason.BAD_KEY, f"it is {_kind(key)}")
        try:
            text = value.encode("utf-8")
            str(key).encode("utf-8")
        except UnicodeEncodeError as error:
            return Skip(source, Reason.LONE_SURROGATE, f"character {error.start}")
        refused = self._rules.refuses(text)
        return Skip(source, *refused) if refused else Document(text, source, None if key is None else str(key))


class _ColumnWatch:
    """Tells a line that lacks a column (left out) from a column name that no line has (an error)."""

    def __init__(self, path: Path, rules: TextRules):
        self._path = path
        wanted = [rules.text_column] + ([rules.key_column] if rules.key_column is not None else [])
        self._unseen = dict.fromkeys(wanted, 0)
        self._wanted = tuple(wanted)
        self._example: dict[str, dict[str, Any]] = {}

    def look_at(self, record: dict[str, Any]) -> str | None:
        """The first wanted column that ``record`` lacks, or ``None``.

        Raises:
            ProxyByteError: when many lines have gone by and no line had it.
        """
        missing = None
        for column in self._wanted:
            if column in record:
                self._unseen.pop(column, None)
            else:
                missing = missing or column
                if column in self._unseen:
                    self._example.setdefault(column, record)
                    self._unseen[column] += 1
                    if self._unseen[column] >= _PATIENCE:
                        self.finish()
        return missing

    def finish(self) -> None:
        """Raise the error for a column that some lines lacked and none had."""
        for column, count in self._unseen.items():
            if count:
                raise unknown_column(str(self._path), column, self._example[column])


def open_stored(stored: BinaryIO, path: Path) -> BinaryIO:
    """Buffered stream of what ``stored`` holds, decompressed as the file's suffix says.

    Arrow's decompressor is used because it reads concatenated frames and reports a truncated one; Python's
    ``zstandard`` takes a truncated frame for the end of the file.
    """
    codec = COMPRESSIONS.get(path.suffix)
    if codec is None:
        return stored
    if path.stat().st_size == 0:
        raise ProxyByteError(f"{path} is empty, which is no {codec} file: write it again")
    stream = pa.CompressedInputStream(pa.PythonFile(stored, mode="r"), codec)
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), _BLOCK))


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), "a string")
