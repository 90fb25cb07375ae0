"""Run tasks in this process or in several; progress and a stop signal are shared."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from proxybyte.errors import ProxyByteError
from proxybyte.training.prepare.manifest import SplitTotals
from proxybyte.training.prepare.shard import ShardEncoder, Verify
from proxybyte.training.prepare.tasks import ShardTask
from proxybyte.training.processes import end_with_parent

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
