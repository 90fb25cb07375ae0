"""What there is to do: pieces of the corpus, each with the fingerprint that tells whether it is done already."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from proxybyte.artefacts import CORPUS_REPORT, Column, Split
from proxybyte.checksums import SKIP_VARIABLE, file_digest, read_record, verify_files, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.training.corpus.folder import read_report
from proxybyte.training.machine import ALL, Share
from proxybyte.training.remote import parquet_source
from proxybyte.training.texts.records import MEGABYTE, damaged, nearest

SHARD_BYTES = 64 * MEGABYTE
_SHARDS_AT_LEAST = 64
_VERSION = 3
"""Part of every fingerprint: raise it when the same input would be written in another way."""
_READ_AT_ONCE = 16
"""Footers of corpus files that are fetched at the same time: on a network each is mostly waiting."""


@dataclass(frozen=True)
class ShardTask:
    """Some row groups of one corpus shard, which become one Arrow file.

    Attributes:
        split: which it is part of.
        corpus_shard: the parquet file.
        row_groups: consecutive row groups of it.
        n_bytes: about how much text they hold.
        file_name: name of the Arrow file; it holds the fingerprint of corpus shard, compressor and options.
    """

    split: Split
    corpus_shard: Path
    row_groups: tuple[int, ...]
    n_bytes: int
    file_name: str


@dataclass(frozen=True)
class _File:
    """A corpus shard by its footer: documents, and the bytes of text in each row group that has any."""

    path: Path
    documents: int
    row_groups: dict[int, int]


@dataclass(frozen=True)
class _Cut:
    """A task that has no name yet: the ``index``-th of its split."""

    split: Split
    index: int
    path: Path
    row_groups: tuple[int, ...]
    n_bytes: int


def check_corpus(corpus: Path) -> None:
    """Refuse what is no corpus folder.

    Raises:
        ProxyByteError: if ``corpus`` has no train shard; the sentence names the nearest corpus folder beside it.
    """
    if any(corpus.glob("train-*.parquet")):
        return
    beside = [path.name for path in corpus.absolute().parent.glob("*") if any(path.glob("train-*.parquet"))]
    raise ProxyByteError(
        f"{corpus} is no corpus folder (no train-*.parquet in it): make one with 'proxybyte corpus'; "
        f"of corpus folders beside it, {nearest(corpus.name, beside)}"
    )


def verify_corpus(corpus: Path, tasks: Iterable[ShardTask] | None = None) -> None:
    """Compare a corpus that has a record of its content with it: all of it, or the files that ``tasks`` read.

    Raises:
        ProxyByteError: if a file is not what was written.
    """
    if not (corpus / CORPUS_REPORT).is_file():
        return
    if tasks is None:
        verify_folder(corpus)
    else:
        verify_files(corpus, sorted({task.corpus_shard.name for task in tasks}))


def plan_tasks(corpus: Path, compressor_digest: str, verify: str, share: Share = ALL) -> list[ShardTask]:
    """Cut the corpus into tasks, and name those of one share of them.

    The cut depends on the corpus alone, neither on the number of workers nor on that of shares.

    Args:
        corpus: a corpus folder.
        compressor_digest: hash of the compressor's files.
        verify: which documents are decoded again.
        share: of the tasks; the files that no task of it reads are not hashed.

    Returns:
        The tasks of the share: of all in order, or, of several shares, from the largest task down.

    Raises:
        ProxyByteError: if a shard is damaged or has other columns, the corpus does not hold what its report says, or
            there is nothing to train on.
    """
    cuts = _share_of(_cut(corpus), share)
    digests = _digests(corpus, sorted({cut.path for cut in cuts}))
    tasks = []
    for cut in cuts:
        key = json.dumps([_VERSION, compressor_digest, verify, cut.split, digests[cut.path], list(cut.row_groups)])
        name = f"data-{cut.index:05d}-{blake2b(key.encode(), digest_size=8).hexdigest()}.arrow"
        tasks.append(ShardTask(cut.split, cut.path, cut.row_groups, cut.n_bytes, name))
    return tasks


def fingerprint_of(tasks: list[ShardTask], compressor_digest: str) -> str:
    """Fingerprint of the whole dataset."""
    return fingerprint_of_files([f"{task.split}/{task.file_name}" for task in tasks], compressor_digest)


def fingerprint_of_files(names: list[str], compressor_digest: str) -> str:
    """Fingerprint of the dataset of these files (``SPLIT/NAME``), whose names say what is in them."""
    return blake2b("\n".join([compressor_digest, *names]).encode(), digest_size=16).hexdigest()


def folder_digest(folder: Path) -> str:
    """Hash of the names and contents of all files below ``folder``."""
    digest = blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}:{file_digest(path)}\n".encode())
    return digest.hexdigest()


def _cut(corpus: Path) -> list[_Cut]:
    """All tasks: consecutive row groups of one file, together until they reach a shard's size."""
    files = {split: _files(corpus, split) for split in Split}
    _check_counts(corpus, files)
    if not any(file.row_groups for file in files[Split.TRAIN]):
        raise ProxyByteError(f"{corpus} holds no training document: collect it again, from more text")
    total = sum(sum(file.row_groups.values()) for split in Split for file in files[split])
    target = min(SHARD_BYTES, total // _SHARDS_AT_LEAST)
    cuts = []
    for split in Split:
        groups = [(file.path, group) for file in files[split] for group in _grouped(file.row_groups, target)]
        for index, (path, group) in enumerate(groups):
            cuts.append(_Cut(split, index, path, tuple(group), sum(group.values())))
    return cuts


def _share_of(cuts: list[_Cut], share: Share) -> list[_Cut]:
    """Every ``of``-th from the largest down, so that shares are alike."""
    if share.of == 1:
        return cuts
    return list(share.of_all(sorted(cuts, key=lambda cut: -cut.n_bytes)))


def _grouped(row_groups: dict[int, int], target: int) -> list[dict[int, int]]:
    groups: list[dict[int, int]] = []
    for index, n_bytes in row_groups.items():
        if not groups or sum(groups[-1].values()) >= target:
            groups.append({})
        groups[-1][index] = n_bytes
    return groups


def _files(corpus: Path, split: Split) -> list[_File]:
    with ThreadPoolExecutor(_READ_AT_ONCE) as readers:
        return list(readers.map(_read_footer, sorted(corpus.glob(f"{split}-*.parquet"))))


def _read_footer(path: Path) -> _File:
    try:
        with parquet_source(path) as source:
            metadata = pq.read_metadata(source)
    except (pa.ArrowException, OSError) as error:
        raise damaged(str(path), error) from error
    schema = metadata.schema.to_arrow_schema()
    for column in (Column.TEXT, Column.SOURCE):
        if column not in schema.names:
            raise ProxyByteError(f"{path} has no column '{column}': it is no shard of 'proxybyte corpus'")
    place = metadata.schema.names.index(Column.TEXT)
    groups = ((index, metadata.row_group(index)) for index in range(metadata.num_row_groups))
    sizes = {index: group.column(place).total_uncompressed_size for index, group in groups if group.num_rows}
    return _File(path, metadata.num_rows, sizes)


def _check_counts(corpus: Path, files: dict[Split, list[_File]]) -> None:
    """Compare the shards with what the corpus's report, where it has one, says of them.

    Raises:
        ProxyByteError: if they hold another number of documents.
    """
    if not (corpus / CORPUS_REPORT).is_file():
        return
    report = read_report(corpus)
    for split, said in zip(Split, (report.train, report.validation), strict=True):
        documents = sum(file.documents for file in files[split])
        if (len(files[split]), documents) != (said.shards, said.documents):
            raise ProxyByteError(
                f"{corpus} holds {documents} documents of {split} in {len(files[split])} shards, its {CORPUS_REPORT} "
                f"says {said.documents} in {said.shards}: collect the corpus again"
            )


def _digests(corpus: Path, paths: list[Path]) -> dict[Path, str]:
    """SHA-256 of corpus shards: as the corpus's own record says, which :func:`verify_corpus` checks, or worked out."""
    checked = (corpus / CORPUS_REPORT).is_file() and not os.environ.get(SKIP_VARIABLE)
    record = read_record(corpus) if checked else None
    known = {} if record is None else record.sums
    return {path: known.get(path.name) or file_digest(path) for path in paths}
