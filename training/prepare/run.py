"""The command's work from corpus folder to prepared folder; interrupted, it goes on where it stopped."""

import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxybyte.artefacts import COMPRESSOR_FOLDER, CORPUS_REPORT, PREPARED_MANIFEST, Split
from proxybyte.checksums import file_digest
from proxybyte.errors import ProxyByteError
from proxybyte.folders import check_output, finish, output_folder, partial_folder, publish, write_text
from proxybyte.progress import Progress
from proxybyte.provenance import DataFacts
from proxybyte.training.compressors import load_compressor
from proxybyte.training.corpus.folder import read_report
from proxybyte.training.prepare.columns import prepared_features
from proxybyte.training.prepare.launch import Crew, crew
from proxybyte.training.prepare.manifest import (
    CompressorInfo,
    PreparedManifest,
    SplitTotals,
    add_totals,
    read_manifest,
)
from proxybyte.training.prepare.shard import DONE, Verify, finished, report_path
from proxybyte.training.prepare.tasks import ShardTask, check_corpus, fingerprint_of, folder_digest, plan_tasks
from proxybyte.training.prepare.workers import Job, default_workers, run_tasks
from proxybyte.training.texts.records import MEGABYTE

_log = logging.getLogger(__name__)

KIND = "prepared data"
"""Of output (``proxybyte.folders``)."""


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


def prepare_corpus(options: PrepareOptions) -> PreparedManifest:
    """Write the prepared folder ``options.output`` and return its manifest.

    The folder is a function of corpus, compressor and options: an output that has their fingerprint is left as it
    is, another one is replaced once the new one is whole. Finished shards of an interrupted run are used again.

    Raises:
        ProxyByteError: for a wrong corpus, compressor or output, a damaged shard, or a compressor that breaks its
            contract.
    """
    with crew(options.workers) as together:
        if not together.is_first:
            _follow(options, together)
            together.wait()
            return read_manifest(options.output)
        with output_folder(options.output, KIND):
            manifest = _lead(options, together)
        together.wait()
        return manifest


def _lead(options: PrepareOptions, together: Crew) -> PreparedManifest:
    """Set up, encode a share of the tasks (all, if alone), put the folder together."""
    started = time.perf_counter()
    check_corpus(options.corpus)
    if options.workers < 0:
        raise ProxyByteError(f"--workers is {options.workers}: give a number of processes, or 0 for one a core")
    partial = partial_folder(options.output)
    info = _carry_compressor(options.compressor, partial)
    tasks = plan_tasks(options.corpus, info.digest, options.verify)
    fingerprint = fingerprint_of(tasks, info.digest)
    ready = _already_prepared(options.output, fingerprint)
    if ready is not None:
        shutil.rmtree(partial)
        _log.info("%s is up to date", options.output)
        together.wait()
        return ready
    complete = _already_prepared(partial, fingerprint)
    if complete is not None:  # an earlier run was killed as it put the folder in its place
        _publish(partial, tasks, complete, options.output)
        together.wait()
        return complete
    kept = _keep_finished(partial, tasks)
    workers = together.size if together.size > 1 else options.workers or _worth_workers(tasks)
    job = Job(partial, prepared_features(info.num_symbols).arrow_schema, options.verify)
    together.wait()
    _encode(
        job, [task for task in tasks if task not in kept], sum(each.bytes for each in kept.values()), together, workers
    )
    results = _results(partial, tasks)
    seconds = time.perf_counter() - started
    train, validation = (add_totals([results[task] for task in tasks if task.split == split]) for split in Split)
    encoded = sum(results[task].bytes for task in tasks if task not in kept)
    manifest = PreparedManifest(
        compressor=info,
        train=train,
        validation=validation,
        fingerprint=fingerprint,
        verify=options.verify,
        ratio=add_totals([train, validation]).ratio,
        workers=workers,
        seconds=seconds,
        mb_per_s=encoded / MEGABYTE / seconds,
        data=read_report(options.corpus).data if (options.corpus / CORPUS_REPORT).is_file() else DataFacts(),
    )
    _publish(partial, tasks, manifest, options.output)
    return manifest


def _publish(partial: Path, tasks: list[ShardTask], manifest: PreparedManifest, output: Path) -> None:
    """Put the folder together and in its place. From when its manifest is there on, it is complete without reports."""
    _finish(partial, tasks, manifest)
    shutil.rmtree(partial / DONE, ignore_errors=True)
    finish(partial, KIND, sums=manifest.total.digests, unsummed=(PREPARED_MANIFEST,))
    check_output(output, KIND)
    publish(partial, output)


def _worth_workers(tasks: list[ShardTask]) -> int:
    """One a core, but for so little text that starting them takes longer than coding it."""
    return default_workers() if sum(task.n_bytes for task in tasks) >= MEGABYTE else 1


def _follow(options: PrepareOptions, together: Crew) -> None:
    """Encode a share of what the first process has set up, if there is anything to do."""
    partial = partial_folder(options.output)
    together.wait()
    if not (partial / COMPRESSOR_FOLDER).is_dir():
        return
    tasks = plan_tasks(options.corpus, folder_digest(partial / COMPRESSOR_FOLDER), options.verify)
    num_symbols = load_compressor(partial / COMPRESSOR_FOLDER).num_symbols
    job = Job(partial, prepared_features(num_symbols).arrow_schema, options.verify)
    _encode(job, [task for task in tasks if finished(partial, task) is None], 0, together, 1)


def _carry_compressor(name_or_folder: str, partial: Path) -> CompressorInfo:
    """Load the compressor and save it into the folder that is being built, which is made if absent."""
    compressor = load_compressor(name_or_folder)
    for name in (*Split, DONE):
        (partial / name).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial / COMPRESSOR_FOLDER, ignore_errors=True)
    compressor.save(partial / COMPRESSOR_FOLDER)
    return CompressorInfo(
        family=compressor.family,
        name=compressor.name,
        num_symbols=compressor.num_symbols,
        lossless=compressor.lossless,
        digest=folder_digest(partial / COMPRESSOR_FOLDER),
    )


def _already_prepared(output: Path, fingerprint: str) -> PreparedManifest | None:
    """The manifest of ``output`` if it is this very dataset and its shards hold what was written."""
    if not (output / PREPARED_MANIFEST).is_file():
        return None
    manifest = read_manifest(output)
    if manifest.fingerprint != fingerprint or not manifest.total.digests:
        return None
    try:
        whole = all(file_digest(output / name) == digest for name, digest in manifest.total.digests.items())
    except OSError:
        whole = False
    return manifest if whole else None


def _keep_finished(partial: Path, tasks: list[ShardTask]) -> dict[ShardTask, SplitTotals]:
    """Totals of the tasks that an earlier run finished; everything else that it left is removed."""
    kept = {task: totals for task in tasks if (totals := finished(partial, task)) is not None}
    wanted = {partial / task.split / task.file_name for task in kept} | {report_path(partial, task) for task in kept}
    for folder in (*Split, DONE):
        for path in (partial / folder).iterdir():
            if path not in wanted:
                path.unlink()
    if kept:
        _log.info("%d of %d shards were finished by an earlier run and are kept", len(kept), len(tasks))
    return kept


def _encode(job: Job, left: list[ShardTask], before: int, together: Crew, workers: int) -> None:
    """Run this process's share of the tasks that are ``left``, and wait until all are done.

    Args:
        job: what to do with each task.
        left: tasks that no earlier run finished; every process has the same.
        before: bytes of text that an earlier run encoded, for the progress bar.
        together: the processes.
        workers: processes that this one starts, where it is alone.
    """
    together.wait()  # so that what one process finishes is still left in the eyes of the others
    mine = together.share(left)
    total = before + sum(task.n_bytes for task in mine)
    progress = "preparing" if together.size == 1 else f"preparing, process 1 of {together.size}"
    shown = {"unit": "B", "unit_scale": True, "delay": 2, "disable": not together.is_first}
    with Progress(total=total, initial=before, desc=progress, **shown) as bar:

        def advance(n_bytes: int) -> None:
            if n_bytes:  # the workers' count is asked for often, and the bar would print each time
                bar.update(n_bytes)
            together.check()

        for _ in run_tasks(job, mine, 1 if together.size > 1 else workers, advance):
            pass
    together.wait()


def _results(partial: Path, tasks: list[ShardTask]) -> dict[ShardTask, SplitTotals]:
    """The totals of every task, read from the reports beside its files.

    Raises:
        ProxyByteError: if one is absent: processes on several machines need one file system.
    """
    results = {}
    for task in tasks:
        totals = finished(partial, task)
        if totals is None:
            raise ProxyByteError(
                f"{partial / task.split / task.file_name} is not there: do all processes see {partial}?"
            )
        results[task] = totals
    return results


def _finish(partial: Path, tasks: list[ShardTask], manifest: PreparedManifest) -> None:
    """Write what makes each split a folder for ``datasets.load_from_disk``, and the manifest; drop an empty split."""
    from datasets import DatasetInfo

    features = prepared_features(manifest.compressor.num_symbols)
    for split in Split:
        folder = partial / split
        names = [task.file_name for task in tasks if task.split == split]
        if not names:  # datasets cannot read a folder without a shard
            folder.rmdir()
            continue
        DatasetInfo(features=features).write_to_directory(str(folder))
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": f"{manifest.fingerprint}-{split}",
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        write_text(folder / "state.json", json.dumps(state, indent=2, sort_keys=True))
    write_text(partial / PREPARED_MANIFEST, manifest.to_json())
