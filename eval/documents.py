"""Held-out documents for the commands: from a prepared folder, JSONL, parquet or plain files."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from proxybyte.errors import ProxyByteError

_PREPARED = "prepared.json"
_TEXT = "text"


@dataclass(frozen=True)
class HeldOut:
    """Documents to score.

    Attributes:
        texts: the bytes of each.
        codes: a compressor's codes of each, from 0; ``None`` where the data carries none.
        uncoded: documents left out because the compressor could not code them (compressed view only).
    """

    texts: list[bytes]
    codes: list[np.ndarray] | None = None
    uncoded: int = 0


def read_held_out(paths: Sequence[Path], split: str, limit: int | None) -> HeldOut:
    """Read documents.

    Args:
        paths: one prepared folder (docs/architecture.md), or files: ``.jsonl`` (key ``text``) and ``.parquet`` (column
            ``text``) hold many documents, any other file is one.
        split: of a prepared folder, ``"validation"`` or ``"train"``.
        limit: take the first so many documents; all if ``None``.

    Raises:
        ProxyByteError: if something is missing, broken, or holds no document.
    """
    for path in paths:
        if not path.exists():
            raise ProxyByteError(f"no such file or folder: {path}")
    if len(paths) == 1 and paths[0].is_dir():
        held_out = _read_prepared(paths[0], split, limit)
    else:
        documents = (document for path in paths for document in _read_file(path))
        held_out = HeldOut(texts=list(islice(documents, limit)))
    if not any(held_out.texts):
        raise ProxyByteError(f"no text in {', '.join(map(str, paths))}")
    return held_out


def coded_only(held_out: HeldOut) -> HeldOut:
    """The documents that have codes, the rest counted."""
    if held_out.codes is None:
        raise ProxyByteError("the compressed view needs codes: give a folder made by 'proxybyte prepare' as --data")
    kept = [number for number, code in enumerate(held_out.codes) if len(code)]
    if not kept:
        raise ProxyByteError("no document in this data has codes: it was prepared without a compressor")
    return HeldOut(
        texts=[held_out.texts[number] for number in kept],
        codes=[held_out.codes[number] for number in kept],
        uncoded=len(held_out.texts) - len(kept),
    )


def _read_prepared(folder: Path, split: str, limit: int | None) -> HeldOut:
    from datasets import load_from_disk

    if not (folder / _PREPARED).is_file():
        raise ProxyByteError(
            f"{folder} is no prepared folder ({_PREPARED} is missing): name files, or run 'proxybyte prepare' first"
        )
    if not (folder / split).is_dir():
        raise ProxyByteError(f"{folder} has no split {split!r}")
    try:
        dataset = load_from_disk(folder / split)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ProxyByteError(f"cannot read {folder / split}: {error}") from error
    missing = {_TEXT, "symbols"} - set(dataset.column_names)
    if missing:
        raise ProxyByteError(f"{folder / split} has no column {sorted(missing)[0]!r}: run 'proxybyte prepare' again")
    rows: pa.Table = dataset.with_format("arrow")[: limit or len(dataset)]
    return HeldOut(
        texts=rows[_TEXT].to_pylist(), codes=[row.values.to_numpy(zero_copy_only=False) for row in rows["symbols"]]
    )


def _read_file(path: Path) -> Iterable[bytes]:
    if path.is_dir():
        raise ProxyByteError(f"{path} is a folder: give files, or one prepared folder alone")
    if path.suffix == ".jsonl":
        return _read_jsonl(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    return [path.read_bytes()]


def _read_jsonl(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = json.loads(line)[_TEXT]
                yield text.encode("utf-8")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ProxyByteError(
                    f"{path}, line {number}: not an object with a string under {_TEXT!r} ({error})"
                ) from error


def _read_parquet(path: Path) -> Iterator[bytes]:
    try:
        column = pq.read_table(path, columns=[_TEXT])[_TEXT]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ProxyByteError(f"cannot read column {_TEXT!r} of {path}: {error}") from error
    for row in column:
        value = row.as_py()
        yield value.encode("utf-8") if isinstance(value, str) else value
