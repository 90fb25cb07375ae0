"""Reader of JSON lines: plain, .gz or .zst."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxybyte.training.texts.records import (
    Advance,
    Document,
    Reason,
    Skip,
    TextRules,
    damaged,
    nearest,
    unknown_column,
)
from proxybyte.training.texts.stored import BLOCK, FileReader, open_stored

_PATIENCE = 100
"""Lines that may lack a column before a file in which no line has it is given up: the name is wrong."""
_BLANK = b" \t\r\n\x0b\x0c"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonLinesReader(FileReader):
    """One document a line that is not blank, from the text column of a JSON object."""

    def _read(self, advance: Advance) -> Iterator[Document | Skip]:
        columns = _ColumnWatch(self._path, self._rules)
        for number, line in numbered_lines(self._path, self._rules.max_bytes, advance):
            source = f"{self._name}:{number}"
            if line is None:
                yield Skip(source, Reason.TOO_LONG, f"a line of more than {self._rules.max_bytes:,} bytes")
            else:
                yield self._read_line(source, line, columns)
        columns.finish()

    def _read_line(self, source: str, line: bytes, columns: "_ColumnWatch") -> Document | Skip:
        try:
            record = json.loads(line.decode("utf-8"))
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


def numbered_lines(path: Path, max_bytes: int, advance: Advance = lambda _: None) -> Iterator[tuple[int, bytes | None]]:
    """Lines that are not blank, without their line break, numbered from 1 as an editor numbers them.

    A line ends at a line feed alone: U+2028, U+2029 and U+0085 may stand inside a JSON string. A byte order mark
    before the first is no part of it.

    Yields:
        The number and the line; ``None`` for one of more than ``max_bytes``, of which only a part is ever in memory.

    Raises:
        ProxyByteError: if the archive is truncated or damaged.
        OSError: if the file cannot be opened.
    """
    seen = number = 0
    limit = len(_BYTE_ORDER_MARK) + max_bytes + len(b"\r\n")
    with path.open("rb", buffering=BLOCK) as stored:
        stream: Any = open_stored(stored, path)
        while True:
            number += 1
            skipped = 0
            try:
                line = stream.readline(limit)
                if not line:
                    return
                whole = len(line) < limit or line.endswith(b"\n")
                while not (whole or line.endswith(b"\n")) and (line := stream.readline(BLOCK)):
                    pass
                content = line.removeprefix(_BYTE_ORDER_MARK if number == 1 else b"").rstrip(b"\r\n")
                blank = whole and not content.strip()
                if blank:
                    skipped = _skip_blank_lines(stream)
            except OSError as error:
                raise damaged(f"{path}, line {number},", error) from error
            if not blank:
                yield number, content if whole and len(content) <= max_bytes else None
            number += skipped
            position = stored.tell()
            advance(position - seen)
            seen = position


def _skip_blank_lines(stream: Any) -> int:
    """Step over the blank lines that are buffered already, and say how many: archives may hold thousands of millions.

    Raises:
        OSError: if the archive is damaged.
    """
    skipped = 0
    while waiting := stream.peek():
        blank = len(waiting) - len(waiting.lstrip(_BLANK))
        end = waiting.rfind(b"\n", 0, blank) + 1
        if not end:
            break
        skipped += waiting.count(b"\n", 0, end)
        stream.read(end)
    return skipped


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


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), "a string")
