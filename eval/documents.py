"""Held-out documents for the commands, with their codes where they were prepared."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from proxybyte.errors import ProxyByteError
from proxybyte.training import TextSource

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


def read_held_out(source: TextSource, limit: int | None) -> HeldOut:
    """Read documents.

    Args:
        source: what to read; of one prepared folder the compressor's codes come along.
        limit: take the first so many documents; all if ``None``.

    Raises:
        ProxyByteError: if something is missing, broken, or holds no document.
    """
    if len(source.paths) == 1 and (source.paths[0] / _PREPARED).is_file():
        held_out = _read_prepared(source.paths[0], source.split, limit)
        if not any(held_out.texts):
            raise ProxyByteError(f"no text in {source.paths[0]}")
        return held_out
    return HeldOut(texts=list(islice(source.read(), limit)))


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
