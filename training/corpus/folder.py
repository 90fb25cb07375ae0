"""A corpus folder: its shards of text, and the report beside them."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from proxybyte.artefacts import CORPUS_REPORT, Column
from proxybyte.errors import ProxyByteError
from proxybyte.provenance import DataFacts
from proxybyte.training.texts.records import MEGABYTE, Document, left_out_lines

SCHEMA = pa.schema([(Column.TEXT, pa.large_binary()), (Column.SOURCE, pa.string())])
ROW_GROUP_BYTES, ROW_GROUP_ROWS = 4 * MEGABYTE, 1 << 15
"""Text and documents in one row group: the smallest piece of work of ``prepare``, so that small corpora use every core
too, and what waits in memory here is little."""


@dataclass(frozen=True)
class SplitCount:
    """What one split holds."""

    documents: int = 0
    bytes: int = 0
    shards: int = 0


class SplitWriter:
    """Writes one split as ``SPLIT-00000.parquet``, ``SPLIT-00001.parquet``, ...; no shard if nothing is added.

    The folder is a partial one (``proxybyte.folders``), so that no reader ever sees half a shard.
    """

    def __init__(self, folder: Path, split: str, shard_bytes: int):
        self._folder, self._split, self._shard_bytes = folder, split, shard_bytes
        self._writer: pq.ParquetWriter | None = None
        self._texts: list[bytes] = []
        self._sources: list[str] = []
        self._waiting = self._in_shard = self._documents = self._bytes = self._shards = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:  # what went wrong is to be heard, not what closing says after it
            with suppress(Exception):
                self._writer.close()

    def add(self, document: Document) -> None:
        """Append one document."""
        self._texts.append(document.text)
        self._sources.append(document.source)
        self._waiting += len(document.text)
        self._documents += 1
        self._bytes += len(document.text)
        if self._waiting >= ROW_GROUP_BYTES or len(self._texts) >= ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> SplitCount:
        """Write what waits and finish the last shard."""
        if self._texts:
            self._flush()
        self._end_shard()
        return SplitCount(self._documents, self._bytes, self._shards)

    def _flush(self) -> None:
        """Write the waiting documents as one row group."""
        if self._writer is None:
            path = self._folder / f"{self._split}-{self._shards:05d}.parquet"
            self._writer = pq.ParquetWriter(
                path, SCHEMA, compression="zstd", use_dictionary=False, write_statistics=False, write_page_checksum=True
            )
            self._shards += 1
        self._writer.write_table(pa.table([self._texts, self._sources], schema=SCHEMA))
        self._in_shard += self._waiting
        self._texts, self._sources, self._waiting = [], [], 0
        if self._in_shard >= self._shard_bytes:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._in_shard = None, 0


LISTED_PACKAGES = 1000


@dataclass(frozen=True)
class CorpusReport:
    """The report of one collection.

    Attributes:
        options: what was asked for.
        train, validation: documents, bytes of text and shards written.
        duplicates, over_cap: documents and bytes that were fit but are not kept.
        left_out: how many lines or files were left out, by reason.
        passed_over: how many files of folders have an ending that was not asked for, by ending; ending in ``/``, how
            many folders of a name were not entered.
        examples: the first faults among them, each with its place and reason.
        packages: how many packages or keys were kept; 0 where every document stands alone.
        packages_held_out: how many of them are in the validation split.
        validation_packages: names of those held out (the first thousand in alphabetical order).
        data: what was said of the text: its licence, its languages, its name on the Hub.
    """

    options: dict[str, Any]
    train: SplitCount
    validation: SplitCount
    duplicates: SplitCount
    over_cap: SplitCount
    left_out: dict[str, int]
    examples: list[str]
    packages: int = 0
    packages_held_out: int = 0
    validation_packages: list[str] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    data: DataFacts = field(default_factory=DataFacts)
    format_version: int = 1

    def to_json(self) -> str:
        """The content of ``corpus.json``."""
        return _ADAPTER.dump_json(self, indent=2).decode("utf-8") + "\n"

    def __str__(self) -> str:
        kept = self.train.bytes + self.validation.bytes
        share = self.validation.bytes / kept if kept else 0.0
        of_documents = self.validation.documents / max(1, self.train.documents + self.validation.documents)
        held_out = f"{self.validation.shards} shards, {share:.2%} of bytes, {of_documents:.2%} of documents"
        lines = [
            _line("train", self.train, f"{self.train.shards} shards"),
            _line("validation", self.validation, held_out),
            f"mean size         {_mean(self.train):>12,}  bytes in train, {_mean(self.validation):,} in validation",
            _line("exact duplicates", self.duplicates, "dropped"),
        ]
        if self.over_cap.documents:
            lines.append(_line("over --max-mb", self.over_cap, "dropped"))
        if self.packages:
            lines.append(f"groups            {self.packages:>12,}  of which {self.packages_held_out:,} held out")
        return "\n".join([*lines, *left_out_lines(self.left_out, self.passed_over, self.examples)])


_ADAPTER = TypeAdapter(CorpusReport)


def read_report(folder: Path) -> CorpusReport:
    """Read the report of a corpus folder.

    Raises:
        ProxyByteError: if there is none or it is damaged.
    """
    path = folder / CORPUS_REPORT
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise ProxyByteError(
            f"{folder} is no corpus folder ({CORPUS_REPORT}: {error.strerror}): make one with 'proxybyte corpus'"
        ) from error
    except ValidationError as error:
        raise ProxyByteError(f"{path} is damaged: collect the corpus again") from error


def _line(name: str, count: SplitCount, note: str) -> str:
    return f"{name:<17} {count.documents:>12,}  documents  {count.bytes / MEGABYTE:>10,.1f} MB  {note}"


def _mean(count: SplitCount) -> int:
    return round(count.bytes / count.documents) if count.documents else 0
