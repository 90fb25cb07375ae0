"""Steps for a datatrove pipeline: what its readers and filters give, as a prepared folder; on any of its executors.

    LocalPipelineExecutor([JsonlReader("s3://lake/text"), PreparedWriter("prepared", "bpe16k")], tasks=64, workers=8)
    LocalPipelineExecutor([PreparedMerge("prepared", tasks=64)])

Each rank writes shards of its own, one or more for each file that it read, and a report when it is through; the merge
orders them by file. So the number of tasks, which says who reads what, is not seen in the output.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from pydantic import TypeAdapter

from proxybyte.artefacts import PREPARED_MANIFEST, Split
from proxybyte.checksums import sealed_json, unsealed_json
from proxybyte.errors import ProxyByteError
from proxybyte.folders import check_parts, output_folder, part_of_output, partial_folder, write_text
from proxybyte.provenance import DataFacts
from proxybyte.training.compressors import load_compressor
from proxybyte.training.corpus.folder import ROW_GROUP_BYTES, SCHEMA
from proxybyte.training.corpus.split import held_out_alone
from proxybyte.training.prepare.columns import prepared_features
from proxybyte.training.prepare.manifest import PreparedManifest, SplitTotals, read_manifest
from proxybyte.training.prepare.publish import (
    KIND,
    Carried,
    Run,
    carried_in,
    carry_compressor,
    manifest_of,
    publish_prepared,
)
from proxybyte.training.prepare.shard import DONE, ONE_THREAD, ShardEncoder, Verify
from proxybyte.training.prepare.tasks import SHARD_BYTES
from proxybyte.training.texts.sources import batches

_REPORTS = "rank-*-of-*.json"


@dataclass(frozen=True)
class Part:
    """One shard that a rank wrote.

    Attributes:
        split: which it is part of.
        source: the file that its documents were read from, or the rank where documents do not say.
        place: its number among the shards of that file and split.
        totals: counts, its file's name and digest among them.
    """

    split: Split
    source: str
    place: int
    totals: SplitTotals


@dataclass(frozen=True)
class RankReport:
    """What one rank wrote, and with which compressor."""

    rank: int
    world_size: int
    compressor: str
    verify: str
    parts: tuple[Part, ...]


_REPORT = TypeAdapter(RankReport)


class PreparedWriter(PipelineStep):
    """Encode documents into shards of a prepared folder, and hand them on; :class:`PreparedMerge` puts it together.

    Documents of one file must come together, as readers of files give them. A document's ``source`` is what its
    metadata says under that name, else its id.

    Args:
        output: the prepared folder; it is built beside its place, where all ranks see it.
        compressor: a registered name, or the folder of a saved compressor.
        verify: which documents to decode again and compare: ``"all"``, ``"sample"`` or ``"none"``.
        validation_share: share of documents to hold out, by a hash of their bytes: equal ones are held out together.
        seed: of that hash.
    """

    type = "💽 - WRITER"
    name = "ProxyByte prepared shards"
    _requires_dependencies: ClassVar[list[str]] = ["pyarrow"]

    def __init__(
        self,
        output: str | Path,
        compressor: str | Path,
        *,
        verify: str = "all",
        validation_share: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        self.output, self.compressor, self.verify = Path(output), str(compressor), Verify(verify)
        self.validation_share, self.seed = validation_share, seed

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the documents of ``rank``; what it wrote when it was killed is written again."""
        if world_size > 1:
            os.environ.update(ONE_THREAD)
        with part_of_output(self.output, f"rank-{rank:05d}-of-{world_size:05d}") as partial:
            carried = carry_compressor(self.compressor, partial)
            (partial / PREPARED_MANIFEST).unlink(missing_ok=True)  # of a merge that was killed before
            report = partial / DONE / f"rank-{rank:05d}-of-{world_size:05d}.json"
            for other in (partial / DONE).glob(_REPORTS):  # of a run with another number of ranks
                if other == report or not other.stem.endswith(f"-of-{world_size:05d}"):
                    other.unlink(missing_ok=True)
            shards = _Shards(partial, carried, self.verify, f"rank {rank:05d} of {world_size:05d}")
            for document in data:
                with self.track_time():
                    self._take(document, shards)
                yield document
            with self.track_time():
                shards.flush()
            made = RankReport(rank, world_size, carried.info.digest, self.verify, tuple(shards.parts))
            write_text(report, sealed_json(_REPORT.dump_python(made, mode="json")))

    def _take(self, document: Document, shards: "_Shards") -> None:
        try:
            text = document.text if isinstance(document.text, bytes) else document.text.encode()
        except UnicodeEncodeError:
            self.stat_update("left out: lone surrogate")
            return
        if not text:
            self.stat_update("left out: empty text")
            return
        held_out = held_out_alone(text, self.validation_share, self.seed)
        source = str(document.metadata.get("source", document.id))
        shards.add(Split.VALIDATION if held_out else Split.TRAIN, document.metadata.get("file_path"), text, source)
        self.stat_update("written")
        self.update_doc_stats(document)


class PreparedMerge(PipelineStep):
    """Put together what the ranks of :class:`PreparedWriter` wrote; the one step of a pipeline of one task.

    Args:
        output: the prepared folder.
        tasks: how many ranks there were.
        data: what is known of the text, for the cards of models that read it.
    """

    type = "💽 - WRITER"
    name = "ProxyByte prepared folder"

    def __init__(self, output: str | Path, tasks: int, data: DataFacts | None = None):
        super().__init__()
        self.output, self.tasks, self.data = Path(output), tasks, data or DataFacts()

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Merge, in rank 0; see :meth:`merge`."""
        if rank == 0:
            self.merge()

    def merge(self) -> PreparedManifest:
        """The folder's manifest, once it is in its place.

        Raises:
            ProxyByteError: if a rank is not through, or is at work.
        """
        started = time.perf_counter()
        partial = partial_folder(self.output)
        with output_folder(self.output, KIND):
            check_parts(self.output)
            if not partial.exists() and (self.output / PREPARED_MANIFEST).is_file():  # killed when all was done
                return read_manifest(self.output)
            if (partial / PREPARED_MANIFEST).is_file():  # killed as it put the folder in its place
                manifest = read_manifest(partial)
            else:
                reports = _reports(self.output, self.tasks)
                parts = _in_place(partial, [part for report in reports for part in report.parts])
                carried = carried_in(partial, reports[0].compressor)
                run = Run(0, time.perf_counter() - started, 0)
                manifest = manifest_of(carried, parts, reports[0].verify, self.data, run)
            publish_prepared(partial, manifest, self.output)
            return manifest


class _Shards:
    """Documents of one rank, gathered into shards.

    Attributes:
        parts: what is written.
    """

    def __init__(self, partial: Path, carried: Carried, verify: Verify, nameless: str):
        self.parts: list[Part] = []
        self._nameless = nameless
        self._waiting: dict[Split, _Waiting] = {}
        self._places: Counter[tuple[Split, str]] = Counter()
        schema = prepared_features(carried.info.num_symbols).arrow_schema
        compressor = load_compressor(str(carried.folder))
        self._encoder = ShardEncoder(compressor, schema, partial, verify, lambda _: None)

    def add(self, split: Split, file: str | None, text: bytes, source: str) -> None:
        """Append a document that was read from ``file``."""
        name = self._nameless if file is None else str(file)
        waiting = self._waiting.get(split)
        if waiting is not None and waiting.file != name:
            self._write(split)
        waiting = self._waiting.setdefault(split, _Waiting(name))
        waiting.texts.append(text)
        waiting.sources.append(source)
        waiting.n_bytes += len(text)
        if waiting.n_bytes >= SHARD_BYTES:
            self._write(split)

    def flush(self) -> None:
        """Write what waits."""
        for split in list(self._waiting):
            self._write(split)

    def _write(self, split: Split) -> None:
        waiting = self._waiting.pop(split)
        place = self._places[split, waiting.file]
        self._places[split, waiting.file] += 1
        name = f"{split}/part-{blake2b(waiting.file.encode(), digest_size=8).hexdigest()}-{place:05d}.arrow"
        self.parts.append(Part(split, waiting.file, place, self._encoder.write(name, waiting.tables())))


@dataclass
class _Waiting:
    """Documents of one file that are not encoded yet."""

    file: str
    texts: list[bytes] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    n_bytes: int = 0

    def tables(self) -> Iterator[pa.Table]:
        """As row groups of a corpus."""
        first = 0
        for batch in batches(self.texts, ROW_GROUP_BYTES):
            last = first + len(batch)
            yield pa.table([batch, self.sources[first:last]], schema=SCHEMA)
            first = last


def _reports(output: Path, tasks: int) -> list[RankReport]:
    """The report of every rank.

    Raises:
        ProxyByteError: if one is not there or was altered, or they are of several compressors.
    """
    reports = []
    for rank in range(tasks):
        path = partial_folder(output) / DONE / f"rank-{rank:05d}-of-{tasks:05d}.json"
        try:
            reports.append(_REPORT.validate_python(unsealed_json(path.read_bytes())))
        except (OSError, ValueError) as error:
            raise ProxyByteError(
                f"{output}: rank {rank} of {tasks} is not through ({path.name} is not there, or damaged): run it again"
            ) from error
    if len({(report.compressor, report.verify) for report in reports}) != 1:
        raise ProxyByteError(
            f"{output}: its ranks ran with several compressors or kinds of verification: run all again"
        )
    return reports


def _in_place(partial: Path, parts: list[Part]) -> list[tuple[Split, SplitTotals]]:
    """Give shards names by their place in the whole, and remove what is none; a merge that was killed goes on.

    Returns:
        Split and totals of each, those of training first.
    """
    ordered = sorted(parts, key=lambda part: (list(Split).index(part.split), part.source, part.place))
    numbers: Counter[Split] = Counter()
    placed = []
    for part in ordered:
        ((name, digest),) = part.totals.digests.items()
        final = f"{part.split}/data-{numbers[part.split]:05d}-{digest[:16]}.arrow"
        numbers[part.split] += 1
        if (partial / name).exists():
            (partial / name).replace(partial / final)
        (size,) = part.totals.files.values()
        placed.append((part.split, replace(part.totals, files={final: size}, digests={final: digest})))
    wanted = {name for _, totals in placed for name in totals.files}
    for split in Split:
        for path in (partial / split).iterdir():
            if f"{split}/{path.name}" not in wanted:
                path.unlink()
    return placed
