"""What a transfer evaluation reads: a model of two views, its compressor, and documents in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxybyte.artefacts import ModelFolder, find_model
from proxybyte.errors import ProxyByteError
from proxybyte.eval.bpb import embedding_rows
from proxybyte.eval.loading import ModelKind, load_model, model_kind
from proxybyte.symbols import COMPRESSED_OFFSET
from proxybyte.training import CannotEncode, Compressor, load_compressor


@dataclass(frozen=True)
class TwoViewModel:
    """A model that reads bytes and a compressor's symbols.

    Attributes:
        model: in evaluation mode.
        compressor: the one that it was trained with.
    """

    model: Any
    compressor: Compressor


@dataclass(frozen=True)
class Pair:
    """One document in both views.

    Attributes:
        text: its bytes, not empty.
        codes: the compressor's codes of them, numbered from 0.
    """

    text: bytes
    codes: np.ndarray


def load_two_views(folder: str | Path, compressor: str | None, device: str, dtype: str) -> TwoViewModel:
    """A proxy model with its compressor.

    Args:
        folder: what :func:`~proxybyte.artefacts.find_model` takes.
        compressor: name or folder of the compressor; the one that it carries if absent.
        device: of PyTorch, or ``"auto"``.
        dtype: as for :func:`~.loading.load_model`.

    Raises:
        ProxyByteError: if there is no model or no compressor, or the model does not read the compressor's symbols.
    """
    found = find_model(folder)
    model = load_model(found, device, dtype)
    if model_kind(model) is ModelKind.TOKENS:
        raise ProxyByteError(f"{folder} is a tokenizer model: transfer is measured on models that read bytes as well")
    rows = embedding_rows(model) - COMPRESSED_OFFSET
    if rows <= 0:
        raise ProxyByteError(f"{folder} reads raw bytes alone: it has no rows for compressed symbols")
    loaded = load_compressor(compressor or _carried(found, folder))
    if loaded.num_symbols > rows:
        raise ProxyByteError(
            f"{folder} has rows for {rows} compressed symbols, but {loaded.name} has {loaded.num_symbols}: "
            "give the compressor that the model was trained with"
        )
    return TwoViewModel(model, loaded)


def _carried(found: ModelFolder, asked: str | Path) -> Path:
    if found.compressor is not None:
        return found.compressor
    raise ProxyByteError(
        f"{asked} carries no compressor, so nothing can be written in its symbols: give --compressor, or a run or full "
        "export that has one"
    )


def pair_up(documents: Sequence[bytes], compressor: Compressor, max_bytes: int) -> tuple[list[Pair], int]:
    """Heads of documents in both views, and how many were left out for want of a code.

    Raises:
        ProxyByteError: if none is left.
    """
    heads = [document[:max_bytes] for document in documents if document]
    codes = compressor.encode_batch(heads)
    pairs = [Pair(text, code) for text, code in zip(heads, codes, strict=True) if not isinstance(code, CannotEncode)]
    if not pairs:
        raise ProxyByteError(f"{compressor.name} can code none of the {len(heads)} documents")
    return pairs, len(heads) - len(pairs)
