"""What there is to do: pieces of the corpus, each with the fingerprint that tells whether it is done already."""

import json
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from proxybyte.artefacts import CORPUS_REPORT, Column, Split
from proxybyte.checksums import verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.training.corpus.folder import read_report
from proxybyte.training.texts.records import MEGABYTE, damaged, nearest

SHARD_BYTES = 64 * MEGABYTE
_SHARDS_AT_LEAST = 64
_VERSION = 1
"""Part of every fingerprint: raise it when the same input would be written in another way."""


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
class _Piece:
    corpus_shard: Path
    digest: str
    row_group: int
    n_bytes: int


def check_corpus(corpus: Path) -> None:
    """Refuse what is no corpus folder.

    Raises:
        ProxyByteError: if ``corpus`` has no train shard; the sentence names the nearest corpus folder beside it.
    """
    if any(corpus.glob("train-*.parquet")):
        if (corpus / CORPUS_REPORT).is_file():
            _check_counts(corpus)
            verify_folder(corpus)
        return
    beside = [path.name for path in corpus.absolute().parent.glob("*") if any(path.glob("train-*.parquet"))]
    raise ProxyByteError(
        f"{corpus} is no corpus folder (no train-*.parquet in it): make one with 'proxybyte corpus'; "
        f"of corpus folders beside it, {nearest(corpus.name, beside)}"
    )


def _check_counts(corpus: Path) -> None:
    """Compare the shards with what the corpus's report says of them.

    Raises:
        ProxyByteError: if they hold another number of documents.
    """
    report = read_report(corpus)
    for split, said in zip(Split, (report.train, report.validation), strict=True):
        paths = sorted(corpus.glob(f"{split}-*.parquet"))
        documents = 0
        for path in paths:
            try:
                documents += pq.read_metadata(path).num_rows
            except (pa.ArrowException, OSError) as error:
                raise damaged(str(path), error) from error
        if (len(paths), documents) != (said.shards, said.documents):
            raise ProxyByteError(
                f"{corpus} holds {documents} documents of {split} in {len(paths)} shards, its {CORPUS_REPORT} says "
                f"{said.documents} in {said.shards}: collect the corpus again"
            )


def plan_tasks(corpus: Path, compressor_digest: str, verify: str) -> list[ShardTask]:
    """Cut the corpus into tasks; the cut depends on the corpus alone, not on the number of workers.

    Raises:
        ProxyByteError: if a shard is damaged or has other columns, or there is nothing to train on.
    """
    pieces = {split: _pieces(corpus, split) for split in Split}
    if not pieces[Split.TRAIN]:
        raise ProxyByteError(f"{corpus} holds no training document: collect it again, from more text")
    total = sum(piece.n_bytes for split in Split for piece in pieces[split])
    target = min(SHARD_BYTES, total // _SHARDS_AT_LEAST)
    tasks = []
    for split in Split:
        for index, group in enumerate(_grouped(pieces[split], target)):
            row_groups = [piece.row_group for piece in group]
            key = json.dumps([_VERSION, compressor_digest, verify, split, group[0].digest, row_groups])
            fingerprint = blake2b(key.encode(), digest_size=8).hexdigest()
            n_bytes = sum(piece.n_bytes for piece in group)
            name = f"data-{index:05d}-{fingerprint}.arrow"
            tasks.append(ShardTask(split, group[0].corpus_shard, tuple(row_groups), n_bytes, name))
    return tasks


def fingerprint_of(tasks: list[ShardTask], compressor_digest: str) -> str:
    """Fingerprint of the whole dataset."""
    key = "\n".join([compressor_digest, *(f"{task.split}/{task.file_name}" for task in tasks)])
    return blake2b(key.encode(), digest_size=16).hexdigest()


def folder_digest(folder: Path) -> str:
    """Hash of the names and contents of all files below ``folder``."""
    digest = blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}:{_file_digest(path)}\n".encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    digest = blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(MEGABYTE):
            digest.update(block)
    return digest.hexdigest()


def _pieces(corpus: Path, split: Split) -> list[_Piece]:
    """Every row group of a split, in order, with the hash of the file that holds it."""
    pieces: list[_Piece] = []
    for path in sorted(corpus.glob(f"{split}-*.parquet")):
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise damaged(str(path), error) from error
        schema = metadata.schema.to_arrow_schema()
        for column in (Column.TEXT, Column.SOURCE):
            if column not in schema.names:
                raise ProxyByteError(f"{path} has no column '{column}': it is no shard of 'proxybyte corpus'")
        place = metadata.schema.names.index(Column.TEXT)
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        digest = _file_digest(path)
        pieces.extend(
            _Piece(path, digest, index, group.column(place).total_uncompressed_size)
            for index, group in enumerate(groups)
            if group.num_rows
        )
    return pieces


def _grouped(pieces: list[_Piece], target: int) -> list[list[_Piece]]:
    """Consecutive pieces of one file, together until they reach ``target`` bytes."""
    groups: list[list[_Piece]] = []
    size = 0
    for piece in pieces:
        if not groups or size >= target or groups[-1][0].corpus_shard != piece.corpus_shard:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += piece.n_bytes
    return groups
