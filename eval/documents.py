"""Held-out documents for the commands, with their codes where they were prepared."""

import argparse
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from proxybyte import numbers
from proxybyte.artefacts import PREPARED_MANIFEST
from proxybyte.errors import ProxyByteError
from proxybyte.training import TEXT_HELP, add_text_options

if TYPE_CHECKING:
    from proxybyte.training import TextSource


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


def add_document_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Which documents: ``--data`` (``required`` or not), how text is read, and ``--split``."""
    parser.add_argument(
        "--data",
        type=numbers.path,
        nargs="+",
        required=required,
        metavar="PATH",
        help=TEXT_HELP,
    )
    add_text_options(parser)
    parser.add_argument(
        "--split", type=numbers.name, default="validation", help="split of a prepared folder (default: validation)"
    )


def read_held_out(source: "TextSource", limit: int | None) -> HeldOut:
    """Read documents.

    Args:
        source: what to read; of one prepared folder the compressor's codes come along.
        limit: take the first so many documents; all if ``None``.

    Raises:
        ProxyByteError: if something is missing, broken, or holds no document.
    """
    if len(source.paths) == 1 and (source.paths[0] / PREPARED_MANIFEST).is_file():
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
    if not (folder / split).is_dir():
        raise ProxyByteError(f"{folder} has no split {split!r}")
    from proxybyte.training import PreparedSplit  # slow to import, and other text does not need it

    stored = PreparedSplit(folder / split)
    sizes = list(zip(stored.n_bytes.tolist(), stored.n_symbols.tolist(), strict=True))[:limit]
    return HeldOut(
        texts=[stored.raw(number, 0, n_bytes).tobytes() for number, (n_bytes, _) in enumerate(sizes)],
        codes=[stored.compressed(number, 0, max(n_symbols, 0)) for number, (_, n_symbols) in enumerate(sizes)],
    )
