"""Parquet shards of bounded size, as docs/architecture.md describes a corpus folder."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from proxybyte.artefacts import Column
from proxybyte.training.texts.records import MEGABYTE, Document

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
