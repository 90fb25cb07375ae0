"""Encode pieces of the corpus into one Arrow file each, in this process or in several that share a stop signal."""

import multiprocessing
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxybyte.artefacts import Column
from proxybyte.checksums import file_digest, sealed_json, unsealed_json
from proxybyte.errors import ProxyByteError
from proxybyte.folders import sync, write_text
from proxybyte.training.compressors.protocol import Compressor, cut_windows
from proxybyte.training.machine import end_with_parent
from proxybyte.training.prepare.columns import Coder, prepared_batch
from proxybyte.training.prepare.manifest import LISTED, TOTALS, SplitTotals, add_totals
from proxybyte.training.prepare.tasks import ShardTask
from proxybyte.training.remote import parquet_source
from proxybyte.training.texts.records import MEGABYTE, damaged

DONE = "done"
_SAMPLE_EVERY = 16
BATCH_ROWS, BATCH_BYTES = 1 << 14, 16 * MEGABYTE


class Verify(StrEnum):
    """Which documents of a lossless compressor are decoded again and compared with their bytes."""

    ALL = "all"
    SAMPLE = "sample"
    NONE = "none"


class ShardEncoder:
    """Encodes tasks into ``folder/SPLIT/FILE.arrow`` with the report ``folder/done/FILE.json`` beside them.

    Args:
        compressor: the compressor.
        schema: of the prepared split (``proxybyte.training.prepare.columns``).
        folder: the partial prepared folder, with its sub-folders made.
        verify: which documents to decode again.
        advance: called after each batch with the bytes of text in it; may raise to stop between batches.
    """

    def __init__(
        self,
        compressor: Compressor,
        schema: pa.Schema,
        folder: Path,
        verify: Verify,
        advance: Callable[[int], None],
    ):
        self._compressor = compressor
        self._schema = schema
        self._folder = folder
        self._coder = Coder(compressor, {Verify.ALL: 1, Verify.SAMPLE: _SAMPLE_EVERY, Verify.NONE: 0}[verify])
        self._advance = advance

    def run(self, task: ShardTask) -> SplitTotals:
        """Encode ``task``; its Arrow file and report exist only when both are whole.

        Raises:
            ProxyByteError: if the corpus shard is damaged or holds an empty document, or the compressor breaks its
                contract (a code out of range, borders that do not fit).
        """
        name = f"{task.split}/{task.file_name}"
        totals = self.write(name, (_read_row_group(task.corpus_shard, each) for each in task.row_groups))
        write_text(report_path(self._folder, task), sealed_json(TOTALS.dump_python(totals, mode="json")))
        return totals

    def write(self, name: str, tables: Iterable[pa.Table]) -> SplitTotals:
        """Encode tables with ``text`` and ``source`` into the file ``name`` (``SPLIT/FILE``), there only when whole."""
        target = self._folder / name
        temporary = target.with_name(f"{target.name}.{socket.gethostname()}.{os.getpid()}.tmp")
        parts = []
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, self._schema) as stream:
            for columns in (columns for table in tables for columns in _batches(table)):
                batch, totals = self._encode(columns)
                stream.write_batch(batch)
                parts.append(totals)
                self._advance(totals.bytes)
        sync(temporary)
        size, digest = temporary.stat().st_size, file_digest(temporary)
        temporary.replace(target)
        sync(target.parent)
        return add_totals([*parts, SplitTotals(files={name: size}, digests={name: digest})])

    def _encode(self, columns: pa.Table) -> tuple[pa.RecordBatch, SplitTotals]:
        texts: list[bytes] = columns[Column.TEXT].to_pylist()
        started, cut_before = time.perf_counter(), cut_windows(self._compressor)
        coded = self._coder.code(texts)
        seconds = time.perf_counter() - started
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        raw = sorted(coded.reasons)
        sources = [str(columns[Column.SOURCE][place]) for place in raw[:LISTED]]
        totals = SplitTotals(
            documents=len(texts),
            bytes=int(sizes.sum()),
            symbols=len(coded.symbols),
            coded_bytes=int(sizes.sum() - sizes[raw].sum()),
            raw_documents=len(raw),
            raw_bytes=int(sizes[raw].sum()),
            raw_reasons=Counter(re.sub(r"\d+", "N", coded.reasons[place]) for place in raw),
            raw_examples=[f"{source}: {coded.reasons[place]}" for place, source in zip(raw, sources, strict=False)],
            has_borders=coded.has_borders,
            cut_windows=cut_windows(self._compressor) - cut_before,
            encode_seconds=seconds,
        )
        return prepared_batch(self._schema, columns, coded.counts, coded.symbols, coded.borders), totals


def report_path(folder: Path, task: ShardTask) -> Path:
    """Where the report of a finished task lies."""
    return folder / DONE / f"{task.split}-{task.file_name}.json"


def finished(folder: Path, task: ShardTask) -> SplitTotals | None:
    """The totals of ``task`` if its report and its Arrow file are there and hold what was written, else ``None``."""
    try:
        totals = TOTALS.validate_python(unsealed_json(report_path(folder, task).read_bytes()))
        whole = all(file_digest(folder / name) == digest for name, digest in totals.digests.items())
    except (OSError, ValueError, AttributeError):
        return None
    return totals if whole and totals.digests else None


def _batches(columns: pa.Table) -> Iterator[pa.Table]:
    """The rows in slices of at most ``BATCH_ROWS``, a long document alone: as much as is held coded at once."""
    lengths = pc.binary_length(columns[Column.TEXT]).to_numpy()
    first = 0
    while first < len(lengths):
        inside = np.cumsum(lengths[first : first + BATCH_ROWS]) <= BATCH_BYTES
        count = max(1, int(inside.sum()))
        yield columns.slice(first, count)
        first += count


def _read_row_group(path: Path, row_group: int) -> pa.Table:
    """``text`` and ``source`` of one row group.

    Raises:
        ProxyByteError: if the file is damaged, or a document is null or empty.
    """
    try:
        with parquet_source(path) as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
            columns = file.read_row_group(row_group, columns=[Column.TEXT, Column.SOURCE])
    except (pa.ArrowException, OSError) as error:
        raise damaged(f"{path}, row group {row_group},", error) from error
    lengths = pc.fill_null(pc.binary_length(columns[Column.TEXT]), 0).to_numpy()
    if not lengths.all():
        row = int(np.argmin(lengths))
        raise ProxyByteError(f"{path}, row group {row_group}, row {row + 1}: the document is empty; collect it again")
    return columns


ONE_THREAD = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """What every worker needs; it travels to another process, so it names the compressor's folder.

    Attributes:
        folder: the partial prepared folder.
        compressor: the folder of the compressor.
        schema: Arrow schema of a prepared split.
        verify: which documents to decode again.
    """

    folder: Path
    compressor: Path
    schema: pa.Schema
    verify: Verify


class _Stopped(Exception):
    """Another task failed or the user interrupted: leave the batch loop."""


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    job: Job, tasks: list[ShardTask], workers: int, advance: Callable[[int], None]
) -> Iterator[tuple[ShardTask, SplitTotals]]:
    """Run ``tasks`` and yield each with its totals as it finishes, in any order.

    Args:
        job: what to do with each task.
        tasks: the tasks.
        workers: processes; with one, or one task, everything happens in this process.
        advance: called now and then with the bytes of text that were encoded since.

    Raises:
        ProxyByteError: from a task, or if a worker process dies. Finished tasks stay finished.
    """
    if min(workers, len(tasks)) <= 1:
        encoder = make_encoder(job, advance)
        for task in tasks:
            yield task, encoder.run(task)
        return
    context = multiprocessing.get_context("spawn")
    done_bytes, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), context, initializer=_start_worker, initargs=(job, done_bytes, stop)
    )
    seen = 0
    try:
        futures = {pool.submit(_run_in_worker, task): task for task in tasks}
        while futures:
            ended, _ = wait(futures, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            advance(done_bytes.value - seen)
            seen = done_bytes.value
            for future in ended:
                yield futures.pop(future), future.result()
    except BrokenProcessPool as error:
        raise ProxyByteError(
            "a worker process died, perhaps for lack of memory: run again, with fewer --workers; "
            "finished shards are kept"
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def make_encoder(job: Job, advance: Callable[[int], None]) -> ShardEncoder:
    """The encoder of one process."""
    from proxybyte.training.compressors import load_compressor

    return ShardEncoder(load_compressor(job.compressor), job.schema, job.folder, job.verify, advance)


_encoder: ShardEncoder | None = None


def _start_worker(job: Job, done_bytes: Any, stop: Any) -> None:
    """Make this process a worker: one thread, deaf to Ctrl-C (the parent decides), gone when the parent is gone."""
    global _encoder
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    end_with_parent(parent.pid)
    os.environ.update(ONE_THREAD)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def advance(n_bytes: int) -> None:
        with done_bytes.get_lock():
            done_bytes.value += n_bytes
        if stop.is_set():
            raise _Stopped

    _encoder = make_encoder(job, advance)


def _run_in_worker(task: ShardTask) -> SplitTotals:
    assert _encoder is not None
    return _encoder.run(task)
