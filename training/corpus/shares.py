"""A corpus by many processes: each reads a share of the sources and keeps its documents; the merge decides and writes.

A source is cut into parts (``Reader.parts``), whatever the number of shares. Each part becomes one parquet file of
documents, with a sealed report beside it of all that the first pass has to know of them. What tells whether a part is
done is what it was read from: names, sizes and times of files, and the options of reading.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from proxybyte.checksums import file_digest, sealed_json, unsealed_json
from proxybyte.errors import ProxyByteError
from proxybyte.folders import check_parts, locked_output, part_of_output, sync, write_text
from proxybyte.progress import Progress
from proxybyte.training.corpus.collect import (
    CorpusOptions,
    Survey,
    open_sources,
    refuse_another,
    survey,
    write_corpus,
)
from proxybyte.training.corpus.folder import ROW_GROUP_BYTES, ROW_GROUP_ROWS, CorpusReport
from proxybyte.training.corpus.split import Catalogue
from proxybyte.training.machine import Share
from proxybyte.training.texts.records import MEGABYTE, Document, LeftOut, Reader

_VERSION = 1
_DOCUMENTS = pa.schema(
    [("text", pa.large_binary()), ("source", pa.string()), ("key", pa.string()), ("whole", pa.binary())]
)


@dataclass(frozen=True)
class PartReport:
    """What the first pass found in one part.

    Attributes:
        digests: 16 bytes for each document, in hexadecimal.
        sizes, units, unit_names: of :class:`~.split.Catalogue`.
        counts, passed_over, examples: of :class:`~.records.LeftOut`.
        survey: digest of all of it.
        file: SHA-256 of the file of documents.
    """

    digests: str
    sizes: list[int]
    units: list[int]
    unit_names: dict[int, str]
    counts: dict[str, int]
    passed_over: dict[str, int]
    examples: list[str]
    survey: str
    file: str

    def as_survey(self, limit: int) -> Survey:
        """The survey that it was made of."""
        catalogue, left_out = Catalogue(), LeftOut(limit)
        catalogue.extend(bytes.fromhex(self.digests), self.sizes, self.units, self.unit_names)
        left_out.counts, left_out.passed_over, left_out.examples = self.counts, self.passed_over, self.examples
        return Survey(catalogue, left_out, self.survey)


_REPORT = TypeAdapter(PartReport)


@dataclass(frozen=True)
class ShareDone:
    """What one process did of its share of the parts: how many there are, how many it found done, bytes it read."""

    share: Share
    parts: int
    kept: int
    read: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"shard {self.share}: {self.parts} parts of the sources, {self.kept} of them done before; "
            f"{self.read / MEGABYTE:,.1f} MB of text read in {self.seconds:.1f} s"
        )


def shares_folder(output: Path) -> Path:
    """Where the shares of a corpus keep what they read: ``NAME.shards`` beside it, which the merge removes."""
    return output.resolve().with_name(f"{output.resolve().name}.shards")


def collect_share(options: CorpusOptions, share: Share) -> ShareDone:
    """Survey one share of the sources, for :func:`merge_corpus` to make the corpus of.

    What is done already is not done again, though it may have been done in another number of shares.

    Raises:
        ProxyByteError: as ``collect_corpus``; if another process does this share.
    """
    started = time.perf_counter()
    refuse_another(options)
    work = shares_folder(options.output)
    with part_of_output(options.output, share.name, work):
        parts = share.of_all(_named_parts(options))
        left = [(name, part) for name, part in parts if not _is_whole(work, name)]
        with Progress(total=len(left), desc="reading", unit="part", delay=2) as bar:
            read = 0
            for name, part in left:
                read += _keep(work / name, part, options)
                bar.update(1)
    return ShareDone(share, len(parts), len(parts) - len(left), read, time.perf_counter() - started)


def merge_corpus(options: CorpusOptions) -> CorpusReport:
    """Write the corpus folder that ``collect_corpus`` writes, of what :func:`collect_share` read for all shares.

    Raises:
        ProxyByteError: as ``collect_corpus``; if a part is not read, or a process is at work on a share.
    """
    work = shares_folder(options.output)
    with locked_output(options.output):
        check_parts(options.output, work)
        refuse_another(options)
        names = [name for name, _ in _named_parts(options)]
        if missing := [name for name in names if not _is_there(work, name)]:
            raise ProxyByteError(
                f"{options.output}: {len(missing)} of {len(names)} parts of the sources are not read: run the shards "
                "that did not end well again, and all where a source has changed"
            )
        found = (_report_of(work, name).as_survey(options.examples) for name in names)
        made = write_corpus(options, found, _documents([work / name for name in names]))
        shutil.rmtree(work, ignore_errors=True)
        return made


def _named_parts(options: CorpusOptions) -> list[tuple[str, Reader]]:
    """Every part of the sources with the name of its file, which holds its fingerprint."""
    parts = [part for reader in open_sources(options) for part in reader.parts()]
    how = repr((_VERSION, options.rules, options.cut_bytes, options.strict, options.examples))
    named = []
    for index, part in enumerate(parts):
        key = blake2b(f"{how}\n{part.identity()}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        named.append((f"part-{index:06d}-{key}.parquet", part))
    return named


def _report_of(work: Path, name: str) -> PartReport:
    """The report of a part.

    Raises:
        ProxyByteError: if it is damaged.
    """
    path = work / f"{name}.json"
    try:
        return _REPORT.validate_python(unsealed_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ProxyByteError(f"{path} is damaged: remove it, and run all shards again") from error


def _is_there(work: Path, name: str) -> bool:
    """Whether a part was read; what it holds is compared when it is written, document by document."""
    return (work / f"{name}.json").is_file() and (work / name).is_file()


def _is_whole(work: Path, name: str) -> bool:
    """Whether a part was read, and its file and report hold what was written."""
    try:
        return _is_there(work, name) and file_digest(work / name) == _report_of(work, name).file
    except (OSError, ProxyByteError):
        return False


def _keep(target: Path, part: Reader, options: CorpusOptions) -> int:
    """Survey a part and write its documents; bytes of text in it. Its report is there only when both are whole."""
    temporary = target.with_name(f"{target.name}.tmp")
    with _PartWriter(temporary) as writer:
        found = survey(part, options, lambda _: None, writer.add)
    sync(temporary)
    digest = file_digest(temporary)
    temporary.replace(target)
    digests, sizes, units, names = found.catalogue.content()
    report = PartReport(
        digests=digests.hex(),
        sizes=list(sizes),
        units=list(units),
        unit_names=dict(names),
        counts=found.left_out.counts,
        passed_over=found.left_out.passed_over,
        examples=found.left_out.examples,
        survey=found.digest,
        file=digest,
    )
    write_text(target.with_name(f"{target.name}.json"), sealed_json(_REPORT.dump_python(report, mode="json")))
    return sum(sizes)


class _PartWriter:
    """Documents of a part as parquet, in row groups as a corpus has them."""

    def __init__(self, path: Path):
        self._writer = pq.ParquetWriter(
            path,
            _DOCUMENTS,
            compression="zstd",
            use_dictionary=["key"],
            write_statistics=False,
            write_page_checksum=True,
        )
        self._waiting: list[Document] = []
        self._size = 0

    def __enter__(self) -> "_PartWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._waiting:
            self._flush()
        self._writer.close()

    def add(self, document: Document) -> None:
        """Append one document."""
        self._waiting.append(document)
        self._size += len(document.text)
        if self._size >= ROW_GROUP_BYTES or len(self._waiting) >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = [[getattr(document, name) for document in self._waiting] for name in _DOCUMENTS.names]
        self._writer.write_table(pa.table(columns, schema=_DOCUMENTS))
        self._waiting, self._size = [], 0


def _documents(paths: list[Path]) -> Iterator[Document]:
    """Every document that was kept, in reading order."""
    for path in paths:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                for row in file.read_row_group(group).to_pylist():
                    yield Document(row["text"], row["source"], row["key"], row["whole"])
