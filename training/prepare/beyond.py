"""Prepare into a place beyond this machine (``s3://...``): shards are written here, and sent as each is finished.

A shard goes to its final place, under a name that says what is in it, and its report to ``NAME.partial/done``; so the
merge moves no data. It writes the small files, ``prepared.json`` last, and then removes what an earlier dataset had. An
object store has no locks: two processes that do the same write the same.
"""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from proxybyte.artefacts import PREPARED_MANIFEST, Split
from proxybyte.checksums import SUMS, Record, file_digest, files_in, unsealed_json
from proxybyte.folders import write_text
from proxybyte.training.machine import ALL, Share
from proxybyte.training.prepare.manifest import TOTALS, PreparedManifest, SplitTotals, read_manifest
from proxybyte.training.prepare.publish import KIND, Carried, Run, carry_compressor, complete, manifest_of
from proxybyte.training.prepare.run import (
    PrepareOptions,
    ShareDone,
    data_facts,
    encode,
    unfinished,
    workers_for,
)
from proxybyte.training.prepare.shard import DONE, report_path
from proxybyte.training.prepare.tasks import ShardTask, check_corpus, fingerprint_of, plan_tasks, verify_corpus
from proxybyte.training.remote import earlier_record, names_below, remove, send

_AT_ONCE = 16
"""Objects asked for at the same time."""


def prepare_beyond(options: PrepareOptions, *, merge: bool = False) -> PreparedManifest:
    """``prepare_corpus``, or with ``merge`` ``merge_shares``, for an output beyond this machine."""
    started = time.perf_counter()
    store = _Store(options.output)
    with tempfile.TemporaryDirectory() as temporary:
        carried, tasks = _plan(options, Path(temporary), ALL)
        fingerprint = fingerprint_of(tasks, carried.info.digest)
        if (ready := store.manifest()) is not None and ready.fingerprint == fingerprint:
            return ready
        results = store.finished(tasks)
        left = [task for task in tasks if task not in results]
        if left and merge:
            raise unfinished(options.output, tasks, left)
        if not merge:
            verify_corpus(options.corpus)
        encoded = _encode(options, carried, Path(temporary), left, store)
        results |= store.finished(left)
        if missing := [task for task in tasks if task not in results]:
            raise unfinished(options.output, tasks, missing)
        parts = [(task.split, results[task]) for task in tasks]
        run = Run(workers_for(options, tasks) if left else 0, time.perf_counter() - started, encoded)
        manifest = manifest_of(carried, parts, options.verify, data_facts(options.corpus), run)
        store.publish(Path(temporary), manifest)
        return manifest


def share_beyond(options: PrepareOptions, share: Share) -> ShareDone:
    """``prepare_share`` for an output beyond this machine."""
    started = time.perf_counter()
    store = _Store(options.output)
    with tempfile.TemporaryDirectory() as temporary:
        carried, tasks = _plan(options, Path(temporary), share)
        ready = store.manifest()
        names = {f"{task.split}/{task.file_name}" for task in tasks}
        if ready is not None and names <= ready.total.files.keys():
            return ShareDone(share, len(tasks), len(tasks), 0, time.perf_counter() - started)
        results = store.finished(tasks)
        left = [task for task in tasks if task not in results]
        verify_corpus(options.corpus, left)
        encoded = _encode(options, carried, Path(temporary), left, store)
        return ShareDone(share, len(tasks), len(results), encoded, time.perf_counter() - started)


def _plan(options: PrepareOptions, scratch: Path, share: Share) -> tuple[Carried, list[ShardTask]]:
    check_corpus(options.corpus)
    carried = carry_compressor(options.compressor, scratch)
    return carried, plan_tasks(options.corpus, carried.info.digest, options.verify, share)


def _encode(options: PrepareOptions, carried: Carried, scratch: Path, left: list[ShardTask], store: "_Store") -> int:
    return encode(options, carried, scratch, left, 0, lambda task: store.deliver(scratch, task))


@dataclass(frozen=True)
class _Store:
    """The output, and beside it ``NAME.partial`` with the reports of shards."""

    output: Path

    @property
    def _done(self) -> Path:
        return self.output.parent / f"{self.output.name}.partial" / DONE

    def manifest(self) -> PreparedManifest | None:
        """Of what is there; ``None`` where nothing is.

        Raises:
            ProxyByteError: if something else is there.
        """
        ours = tuple(f"{split}/data-" for split in Split)
        if all(name.startswith(ours) for name in names_below(self.output)):  # shards that are not merged yet
            return None
        earlier_record(self.output, KIND)
        return read_manifest(self.output) if (self.output / PREPARED_MANIFEST).exists() else None

    def finished(self, tasks: list[ShardTask]) -> dict[ShardTask, SplitTotals]:
        """Totals of the tasks whose report and file are there; of the file its size is compared."""
        there = set(names_below(self._done))
        sizes = {name: (self.output / name) for name in names_below(self.output)}

        def look(task: ShardTask) -> SplitTotals | None:
            report = report_path(Path(), task).name
            name = f"{task.split}/{task.file_name}"
            if report not in there or name not in sizes:
                return None
            try:
                totals = TOTALS.validate_python(unsealed_json((self._done / report).read_bytes()))
            except (OSError, ValueError):
                return None
            return totals if sizes[name].stat().st_size == totals.files[name] else None

        with ThreadPoolExecutor(_AT_ONCE) as readers:
            found = zip(tasks, readers.map(look, tasks), strict=True)
            return {task: totals for task, totals in found if totals is not None}

    def deliver(self, scratch: Path, task: ShardTask) -> None:
        """Send a finished shard, then its report, and remove both here."""
        name, report = f"{task.split}/{task.file_name}", report_path(scratch, task)
        send(scratch / name, self.output / name)
        send(report, self._done / report.name)
        (scratch / name).unlink()
        report.unlink()

    def publish(self, scratch: Path, manifest: PreparedManifest) -> None:
        """Send what makes the shards a prepared folder, and remove what is none of it."""
        complete(scratch, manifest)
        small = {name: path for name, path in files_in(scratch).items() if path.is_file()}
        sums = {name: file_digest(path) for name, path in small.items() if name != PREPARED_MANIFEST}
        record = Record(KIND, {**manifest.total.digests, **sums}, "", (PREPARED_MANIFEST,))
        write_text(scratch / SUMS, record.to_text())
        for name in (*sums, SUMS, PREPARED_MANIFEST):
            send(scratch / name, self.output / name)
        remove(self.output / name for name in names_below(self.output) if name not in {*record.names, SUMS})
        remove(self._done / name for name in names_below(self._done))
