"""Readers of columns: parquet files (also .gz or .zst around them) and datasets by name."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from proxybyte.errors import ProxyByteError
from proxybyte.training.remote import parquet_source
from proxybyte.training.texts.records import (
    MEGABYTE,
    PART_BYTES,
    Advance,
    Document,
    Reader,
    Reason,
    Skip,
    TextRules,
    damaged,
    first_line,
    nearest,
    unknown_column,
)
from proxybyte.training.texts.stored import COMPRESSIONS, FileReader, open_stored

_BATCH_ROWS = 256


def check_columns(schema: pa.Schema, rules: TextRules, where: str) -> None:
    """Raise unless ``schema`` has the text column, as text, bytes or nulls throughout, and the key column.

    Raises:
        ProxyByteError: naming the nearest column, or the type that cannot be text.
    """
    for column in filter(None, (rules.text_column, rules.key_column)):
        if column not in schema.names:
            raise unknown_column(where, column, schema.names)
    kind = schema.field(rules.text_column).type
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    others = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_null)
    if not any(test(inner) for test in (*texts, *others)):
        raise ProxyByteError(f"column '{rules.text_column}' of {where} holds {kind}, not text: choose --text-column")


def documents_of(batch: pa.RecordBatch, rules: TextRules, where: str, first_row: int) -> Iterator[Document | Skip]:
    """Documents of consecutive rows; rows are numbered from 1 in ``source``."""
    column = batch.column(rules.text_column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    texts = column.cast(pa.large_binary())
    keys: list[Any] = batch.column(rules.key_column).to_pylist() if rules.key_column is not None else []
    for row, scalar in enumerate(texts):
        source = f"{where}:{first_row + row}"
        text: bytes | None = scalar.as_py()
        if text is None:
            yield Skip(source, Reason.NOT_TEXT, "it is null")
            continue
        refused = rules.refuses(text)
        if refused:
            yield Skip(source, *refused)
        elif keys and (isinstance(keys[row], bool) or not isinstance(keys[row], str | int)):
            yield Skip(source, Reason.BAD_KEY, f"it is {type(keys[row]).__name__}")
        else:
            yield Document(text, source, str(keys[row]) if keys else None)


class ParquetReader(FileReader):
    """One document a row of a parquet file.

    Args:
        path, rules, name: see :class:`~.stored.FileReader`.
        row_groups: which of them to read; all by default.
    """

    unreadable = (pa.ArrowException, OSError, UnicodeDecodeError)

    def __init__(self, path: Path, rules: TextRules, name: str = "", row_groups: range | None = None):
        super().__init__(path, rules, name)
        self._row_groups = row_groups

    def parts(self) -> Sequence[Reader]:
        """Consecutive row groups; a compressed file is unpacked as a whole, and so not cut."""
        if self._row_groups is not None or self._path.suffix.lower() in COMPRESSIONS:
            return [self]
        try:
            with parquet_source(self._path) as source:
                metadata = pq.read_metadata(source)
        except self.unreadable as error:
            raise damaged(str(self._path), error) from error
        ends, size = [0], 0
        for index in range(metadata.num_row_groups):
            size += metadata.row_group(index).total_byte_size
            if size >= PART_BYTES or index + 1 == metadata.num_row_groups:
                ends.append(index + 1)
                size = 0
        ranges = [range(first, last) for first, last in pairwise(ends)]
        return [ParquetReader(self._path, self._rules, self._name, part) for part in ranges] or [self]

    def identity(self) -> str:
        """See :class:`~.records.Reader`."""
        return super().identity() + ("" if self._row_groups is None else f" {self._row_groups}")

    def _read(self, advance: Advance) -> Iterator[Document | Skip]:
        with tempfile.TemporaryFile() as unpacked, self._path.open("rb") as stored:
            if self._path.suffix.lower() in COMPRESSIONS:  # parquet is read from its end, so it must be seekable
                shutil.copyfileobj(open_stored(stored, self._path), unpacked, MEGABYTE)
                table = pq.ParquetFile(unpacked, page_checksum_verification=True)
            else:
                table = pq.ParquetFile(stored, page_checksum_verification=True)
            check_columns(table.schema_arrow, self._rules, str(self._path))
            columns = [name for name in (self._rules.text_column, self._rules.key_column) if name is not None]
            chosen = self._row_groups or range(table.num_row_groups)
            sizes = [table.metadata.row_group(index).num_rows for index in range(table.num_row_groups)]
            rows, total = sum(sizes[: chosen.start]), max(1, sum(sizes))
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=chosen, columns=columns):
                yield from documents_of(batch, self._rules, self._name, rows + 1)
                advance(self.stored_bytes() * (rows + batch.num_rows) // total - self.stored_bytes() * rows // total)
                rows += batch.num_rows


@dataclass(frozen=True)
class DatasetName:
    """A dataset as :func:`datasets.load_dataset` takes it; a folder that ``save_to_disk`` wrote is taken too."""

    name: str
    config: str | None = None
    split: str = "train"


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote ``folder``."""
    return any((folder / marker).is_file() for marker in ("state.json", "dataset_dict.json"))


class DatasetReader:
    """One document a row of a dataset. Fetching it is part of making the reader."""

    def __init__(self, wanted: DatasetName, rules: TextRules):
        self._name = wanted.name
        self._first = 1
        self._rules = rules
        dataset = _load(wanted)
        check_columns(dataset.features.arrow_schema, rules, f"dataset {wanted.name}")
        columns = [name for name in (rules.text_column, rules.key_column) if name is not None]
        self._dataset = dataset.select_columns(columns).with_format("arrow")

    def stored_bytes(self) -> int:
        """Bytes of the columns that are read."""
        return self._dataset.data.nbytes

    def parts(self) -> Sequence[Reader]:
        """Consecutive rows."""
        rows, count = len(self._dataset), max(1, self.stored_bytes() // PART_BYTES)
        return [self._of(range(rows * part // count, rows * (part + 1) // count)) for part in range(count)]

    def identity(self) -> str:
        """See :class:`~.records.Reader`."""
        return f"{self._name} {self._dataset._fingerprint} {self._first}"

    def _of(self, rows: range) -> "DatasetReader":
        part = copy(self)
        part._dataset, part._first = self._dataset.select(rows), self._first + rows.start
        return part

    def read(self, advance: Advance) -> Iterator[Document | Skip]:
        """Every row."""
        row = self._first
        for table in self._dataset.iter(_BATCH_ROWS):
            for batch in table.to_batches():
                yield from documents_of(batch, self._rules, self._name, row)
                row += batch.num_rows
                advance(batch.nbytes)


def _load(wanted: DatasetName) -> Any:
    """The one split of the dataset.

    Raises:
        ProxyByteError: if it cannot be loaded; many kinds of error can come out of a loading, so all are told alike.
    """
    import datasets

    try:
        if is_saved_dataset(Path(wanted.name)):
            loaded = datasets.load_from_disk(wanted.name)
        else:
            loaded = datasets.load_dataset(wanted.name, wanted.config, split=wanted.split)
    except Exception as error:
        raise ProxyByteError(f"dataset {wanted.name} cannot be loaded: {first_line(error)}") from error
    if isinstance(loaded, dict):
        if wanted.split not in loaded:
            raise ProxyByteError(
                f"dataset {wanted.name} has no split '{wanted.split}'; {nearest(wanted.split, map(str, loaded))}"
            )
        return loaded[wanted.split]
    return loaded
