"""From corpus folder to prepared folder, by one process or shard by shard; interrupted, it goes on where it stopped.

The work is a function of the corpus: tasks, each of which becomes one file whose name is the fingerprint of all that
goes into it. So whoever runs tasks needs to tell the others nothing: a task is done where its file and report are
there, and who finishes reads the reports.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from proxybyte.artefacts import CORPUS_REPORT, PREPARED_MANIFEST, Split
from proxybyte.errors import ProxyByteError
from proxybyte.folders import check_output, check_parts, output_folder, part_of_output, partial_folder
from proxybyte.locks import HeldError, wait_until_free
from proxybyte.progress import Progress
from proxybyte.provenance import DataFacts
from proxybyte.training.corpus.folder import read_report
from proxybyte.training.machine import Share, check_launch, end_with_launcher
from proxybyte.training.prepare.columns import prepared_features
from proxybyte.training.prepare.manifest import PreparedManifest, SplitTotals, read_manifest
from proxybyte.training.prepare.publish import (
    KIND,
    Carried,
    Run,
    already_prepared,
    carry_compressor,
    digest_of_compressor,
    holds,
    manifest_of,
    publish_prepared,
)
from proxybyte.training.prepare.shard import (
    DONE,
    ONE_THREAD,
    Job,
    Verify,
    default_workers,
    finished,
    report_path,
    run_tasks,
)
from proxybyte.training.prepare.tasks import (
    ShardTask,
    check_corpus,
    fingerprint_of,
    plan_tasks,
    verify_corpus,
)
from proxybyte.training.texts.records import MEGABYTE

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare.

    Attributes:
        corpus: a corpus folder.
        compressor: a registered name, or the folder of a saved compressor.
        output: the prepared folder.
        workers: processes; 0 for one a core, or one for less than a megabyte.
        verify: which documents to decode again and compare.
    """

    corpus: Path
    compressor: str
    output: Path
    workers: int = 0
    verify: Verify = Verify.ALL


@dataclass(frozen=True)
class ShareDone:
    """What one process did of its share of the tasks: how many there are, how many it found done, bytes it encoded."""

    share: Share
    tasks: int
    kept: int
    encoded: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"shard {self.share}: {self.tasks} pieces of the corpus, {self.kept} of them done before; "
            f"{self.encoded / MEGABYTE:,.1f} MB encoded in {self.seconds:.1f} s"
        )


class Unfinished(ProxyByteError):
    """Pieces of the corpus are not encoded yet."""


def prepare_corpus(options: PrepareOptions) -> PreparedManifest:
    """Write the prepared folder ``options.output`` and return its manifest.

    The folder is a function of corpus, compressor and options: an output that has their fingerprint is left as it
    is, another one is replaced once the new one is whole. Finished shards of interrupted runs are used again, of
    whichever share they were.

    Raises:
        ProxyByteError: for a wrong corpus, compressor or output, a damaged shard, or a compressor that breaks its
            contract.
    """
    with output_folder(options.output, KIND):
        return _whole(options, merge=False).manifest


def merge_shares(options: PrepareOptions) -> PreparedManifest:
    """:func:`prepare_corpus` of what :func:`prepare_share` has encoded, for all shares; it encodes nothing itself.

    Raises:
        Unfinished: if a piece is not encoded.
        ProxyByteError: likewise, or if a process is still at work on a share.
    """
    with output_folder(options.output, KIND):
        return _whole(options, merge=True).manifest


def prepare_share(options: PrepareOptions, share: Share) -> ShareDone:
    """Encode one share of the corpus beside the place of the output, for :func:`merge_shares` to put together.

    What is done already is not done again, though it may have been done in another number of shares.

    Raises:
        ProxyByteError: likewise.
    """
    started = time.perf_counter()
    check_corpus(options.corpus)
    check_output(options.output, KIND)
    tasks = plan_tasks(options.corpus, digest_of_compressor(options.compressor), options.verify, share)
    if any(_has_all(folder, tasks) for folder in (options.output, partial_folder(options.output))):
        _log.info("%s holds shard %s already", options.output, share)
        return ShareDone(share, len(tasks), len(tasks), 0, time.perf_counter() - started)
    with part_of_output(options.output, share.name) as partial:
        carried = carry_compressor(options.compressor, partial)
        left = [task for task in tasks if finished(partial, task) is None]
        verify_corpus(options.corpus, left)
        encoded = encode(options, carried, partial, left, 0)
        return ShareDone(share, len(tasks), len(tasks) - len(left), encoded, time.perf_counter() - started)


def launched_share(options: PrepareOptions) -> Share | None:
    """The share of this process among those of a launcher (``torchrun``, ``accelerate launch``), if one started it.

    Raises:
        ProxyByteError: if the launcher was asked for another number of processes than it started, or ``workers`` too
            were asked for.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    check_launch(size)
    if size == 1:
        return None
    if options.workers > 1:
        raise ProxyByteError(
            f"--workers {options.workers} under a launcher of {size} processes: leave it out, they are workers"
        )
    end_with_launcher()
    os.environ.update(ONE_THREAD)
    return Share(int(os.environ["RANK"]), size)


def merge_as_last(options: PrepareOptions) -> PreparedManifest | None:
    """:func:`merge_shares` by whichever process ends its share last; ``None`` where there was nothing to do."""
    while True:
        try:
            with output_folder(options.output, KIND):
                made = _whole(options, merge=True)
                return made.manifest if made.is_new else None
        except Unfinished:
            return None
        except HeldError as error:
            if error.target != options.output:  # a share is at work, whose process comes here later
                return None
            wait_until_free(options.output)


@dataclass(frozen=True)
class _Made:
    manifest: PreparedManifest
    is_new: bool


def _whole(options: PrepareOptions, merge: bool) -> _Made:
    """Encode what is left, or refuse where something is (``merge``), and put the folder together."""
    started = time.perf_counter()
    check_corpus(options.corpus)
    if options.workers < 0:
        raise ProxyByteError(f"--workers is {options.workers}: give a number of processes, or 0 for one a core")
    check_parts(options.output)
    partial = partial_folder(options.output)
    if not merge:
        verify_corpus(options.corpus)
    carried = carry_compressor(options.compressor, partial)
    tasks = plan_tasks(options.corpus, carried.info.digest, options.verify)
    fingerprint = fingerprint_of(tasks, carried.info.digest)
    ready = already_prepared(options.output, fingerprint)
    if ready is not None:
        shutil.rmtree(partial)
        _log.info("%s is up to date", options.output)
        return _Made(ready, False)
    complete = already_prepared(partial, fingerprint)
    if complete is not None:  # an earlier run was killed as it put the folder in its place
        publish_prepared(partial, complete, options.output)
        return _Made(complete, True)
    (partial / PREPARED_MANIFEST).unlink(missing_ok=True)
    results = _finished(partial, tasks)
    left = [task for task in tasks if task not in results]
    if left and merge:
        if not results:  # nobody has begun
            shutil.rmtree(partial)
        raise unfinished(options.output, tasks, left)
    _remove_others(partial, results)
    if results and left:
        _log.info("%d of %d shards were finished by an earlier run and are kept", len(results), len(tasks))
    encoded = encode(options, carried, partial, left, sum(each.bytes for each in results.values()))
    results |= _finished(partial, left)
    if missing := [task for task in tasks if task not in results]:
        raise unfinished(options.output, tasks, missing)
    run = Run(workers_for(options, tasks) if left else 0, time.perf_counter() - started, encoded)
    manifest = manifest_of(
        carried, [(task.split, results[task]) for task in tasks], options.verify, data_facts(options.corpus), run
    )
    publish_prepared(partial, manifest, options.output)
    return _Made(manifest, True)


def unfinished(output: Path, tasks: list[ShardTask], left: list[ShardTask]) -> Unfinished:
    """The error for tasks that are not done."""
    first = left[0]
    return Unfinished(
        f"{output}: {len(left)} of {len(tasks)} pieces are not encoded, the first of them row group "
        f"{first.row_groups[0]} of {first.corpus_shard}: run the shards that did not end well again, or the same "
        "command without --merge, which encodes them itself"
    )


def workers_for(options: PrepareOptions, tasks: list[ShardTask]) -> int:
    """As asked; one a core by default, but for so little text that starting them takes longer than coding it."""
    worth = default_workers() if sum(task.n_bytes for task in tasks) >= MEGABYTE else 1
    return options.workers or worth


def _has_all(folder: Path, tasks: list[ShardTask]) -> bool:
    """Whether ``folder`` is put together already, and the files of ``tasks`` are in it and hold what was written."""
    if not (folder / PREPARED_MANIFEST).is_file():
        return False
    digests = read_manifest(folder).total.digests
    names = [f"{task.split}/{task.file_name}" for task in tasks]
    return all(name in digests for name in names) and holds(folder, {name: digests[name] for name in names})


def _finished(partial: Path, tasks: list[ShardTask]) -> dict[ShardTask, SplitTotals]:
    """Totals of the tasks that are done, by whomever."""
    with ThreadPoolExecutor() as readers:  # hashing lets go of Python's lock
        found = zip(tasks, readers.map(lambda task: finished(partial, task), tasks), strict=True)
        return {task: totals for task, totals in found if totals is not None}


def _remove_others(partial: Path, results: dict[ShardTask, SplitTotals]) -> None:
    """Remove what earlier runs left in the folder that is being built and is no part of the output."""
    wanted = {partial / task.split / task.file_name for task in results}
    wanted |= {report_path(partial, task) for task in results}
    for folder in (*Split, DONE):
        for path in (partial / folder).iterdir():
            if path not in wanted:
                path.unlink()


def data_facts(corpus: Path) -> DataFacts:
    """What is known of the text."""
    return read_report(corpus).data if (corpus / CORPUS_REPORT).is_file() else DataFacts()


def encode(
    options: PrepareOptions,
    carried: Carried,
    partial: Path,
    left: list[ShardTask],
    before: int,
    deliver: Callable[[ShardTask], None] = lambda _: None,
) -> int:
    """Run the tasks that are ``left``; bytes of text in them.

    Args:
        options: of the run.
        carried: the compressor.
        partial: the folder that is being built.
        left: tasks that no earlier run finished.
        before: bytes of text that earlier runs encoded, for the progress bar.
        deliver: called with each task that is finished.
    """
    if not left:
        return 0
    job = Job(partial, carried.folder, prepared_features(carried.info.num_symbols).arrow_schema, options.verify)
    total = before + sum(task.n_bytes for task in left)
    with Progress(total=total, initial=before, desc="preparing", unit="B", unit_scale=True, delay=2) as bar:

        def advance(n_bytes: int) -> None:
            if n_bytes:  # the workers' count is asked for often, and the bar would print each time
                bar.update(n_bytes)

        encoded = 0
        for task, totals in run_tasks(job, left, workers_for(options, left), advance):
            deliver(task)
            encoded += totals.bytes
        return encoded
