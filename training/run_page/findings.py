"""What the page shows of a run, measured on its held-out documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from proxybyte import ProxyByteForCausalLM
from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.eval import (
    ByteGeneration,
    Scoring,
    bits_per_byte,
    byte_bits,
    complete_bytes,
    gzip_bits_per_byte,
    xz_bits_per_byte,
)
from proxybyte.faults import loading
from proxybyte.model_loading import SAFELY
from proxybyte.symbols import document_opening

from ..compressors import CannotEncode, Compressor, load_compressor
from ..run.config_io import finished_run
from ..stream.prepared import PreparedSplit

SHOWN_BYTES = 1200
_PROMPT_BYTES, _WRITTEN_BYTES = 240, 160
"""Of a sample, in a model whose context is as long; both are shorter in a shorter one."""
_LIVELY = 16
"""Different bytes that the text after a prompt has at least: to go on with a ruled line is no feat."""
_PROMPTS = 16
"""Prompts that the sample is chosen from: the one whose continuation is most like the text's own."""


@dataclass(frozen=True)
class Figure:
    """Bits per byte of one way to write the same bytes."""

    name: str
    bits_per_byte: float


@dataclass(frozen=True)
class Sample:
    """What the model writes after a held-out prompt, greedily, beside how the text goes on.

    Attributes:
        agreement: how alike they are, 0 to 1 (``difflib``'s ratio).
        of: out of how many prompts this one agrees most.
    """

    prompt: bytes
    text: bytes
    written: bytes
    agreement: float
    of: int


@dataclass(frozen=True)
class TwoViewsOfText:
    """The beginning of a held-out document.

    Attributes:
        text: its bytes.
        bits: what each costs under the model, shape ``(len(text),)``.
        ends: byte offset at the end of each compressed symbol; ``None`` where symbols have no borders.
        compressor: name of the compressor.
        codes: compressed symbols of ``text``.
    """

    text: bytes
    bits: np.ndarray
    ends: np.ndarray | None
    compressor: str
    codes: int


@dataclass(frozen=True)
class Findings:
    """All that the page shows.

    Attributes:
        run: the run's folder.
        parameters: of the model.
        documents: held-out ones that the figures are over.
        n_bytes: of their text.
        figures: bits per byte, this model first.
        sample: the chosen sample.
        views: a document in both views.
    """

    run: Path
    parameters: int
    documents: int
    n_bytes: int
    figures: tuple[Figure, ...]
    sample: Sample
    views: TwoViewsOfText


def measure(run: Path, max_bytes: int) -> Findings:
    """Score the model of a finished run, and what it is compared with, on its held-out documents.

    Args:
        run: a run folder.
        max_bytes: of held-out text, whole documents.

    Raises:
        ProxyByteError: if the run is not finished, or its data has no validation split.
    """
    config = finished_run(run)
    transformers_logging.disable_progress_bar()
    if not (config.data / "validation").is_dir():
        raise ProxyByteError(f"{config.data} holds no validation documents: the page has nothing to show")
    texts = _documents(PreparedSplit(config.data / "validation"), max_bytes)
    with loading(run / "model", "model"):
        model: Any = AutoModelForCausalLM.from_pretrained(run / "model", **SAFELY).eval()
    torch.manual_seed(config.seed)
    untrained = ProxyByteForCausalLM(model.config).eval()
    scoring = Scoring(window=config.plan.row_capacity, progress=True)
    figures = (
        Figure("this model", bits_per_byte(model, texts, scoring).bits_per_byte),
        Figure("the same model, untrained", bits_per_byte(untrained, texts, scoring).bits_per_byte),
        Figure("gzip -9, each document", gzip_bits_per_byte(texts).bits_per_byte),
        Figure("xz, each document", xz_bits_per_byte(texts).bits_per_byte),
        Figure("xz, all of them as one file", xz_bits_per_byte([b"".join(texts)]).bits_per_byte),
    )
    return Findings(
        run=run,
        parameters=model.num_parameters(),
        documents=len(texts),
        n_bytes=sum(map(len, texts)),
        figures=figures,
        sample=_sample(model, texts),
        views=_views(model, texts, run / "compressor"),
    )


def _documents(split: PreparedSplit, max_bytes: int) -> list[bytes]:
    """The first documents, as many as fit; at least one."""
    ends = np.cumsum(split.n_bytes)
    count = max(1, int(np.searchsorted(ends, max_bytes, "right")))
    return [split.raw(number, 0, int(split.n_bytes[number])).tobytes() for number in range(count)]


def _sample(model: Any, texts: Sequence[bytes]) -> Sample:
    """Greedy continuations of several documents' middles, side by side; the one most like the text."""
    context = min(_PROMPT_BYTES + _WRITTEN_BYTES, model.config.max_position_embeddings - 2)
    size = context * _PROMPT_BYTES // (_PROMPT_BYTES + _WRITTEN_BYTES)
    cut = [_prompt(text, size, context) for text in texts]
    chosen = [pair for pair in cut if len(set(pair[1])) >= _LIVELY][:_PROMPTS] or cut[:1]
    symbols = [np.array([*document_opening(model.config), *encode_bytes(prompt).tolist()]) for prompt, _ in chosen]
    written = complete_bytes(model, symbols, ByteGeneration((), context - size, {"do_sample": False}))
    agreement = [SequenceMatcher(None, a, b, False).ratio() for a, (_, b) in zip(written, chosen, strict=True)]
    best = int(np.argmax(agreement))
    return Sample(*chosen[best], written[best], agreement[best], len(chosen))


def _prompt(text: bytes, size: int, whole: int) -> tuple[bytes, bytes]:
    """``size`` bytes from a line's beginning about a third into ``text``, and what follows, ``whole`` bytes in all."""
    start = text.rfind(b"\n", 0, max(0, (len(text) - whole) // 3)) + 1
    return text[start : start + size], text[start + size : start + whole]


def _views(model: Any, texts: Sequence[bytes], compressor_folder: Path) -> TwoViewsOfText:
    """A piece of a document, of those that the compressor codes at an ordinary ratio, in both views."""
    compressor = load_compressor(compressor_folder)
    limit = min(SHOWN_BYTES, model.config.max_position_embeddings - 2)
    pieces = [_whole_characters(_prompt(text, limit, limit)[0]) for text in texts]
    longest = max(map(len, pieces))
    # As long as any, and of these the one in the middle: the first lines of a file are often its banner.
    text, codes = _ordinary(compressor, [piece for piece in pieces if len(piece) >= 0.9 * longest])
    ends, count = (None, 0) if isinstance(codes, CannotEncode) else (compressor.borders(codes), len(codes))
    return TwoViewsOfText(text, byte_bits(model, text), ends, compressor.name, count)


def _ordinary(compressor: Compressor, pieces: Sequence[bytes]) -> tuple[bytes, np.ndarray | CannotEncode]:
    """The piece whose ratio is the median of those that have a code, with its code."""
    coded = list(zip(pieces, compressor.encode_batch(pieces), strict=True))
    able = [(piece, codes) for piece, codes in coded if not isinstance(codes, CannotEncode)] or coded[:1]
    by_ratio = sorted(able, key=lambda pair: len(pair[1]) / len(pair[0]) if isinstance(pair[1], np.ndarray) else 0.0)
    return by_ratio[len(by_ratio) // 2]


def _whole_characters(text: bytes) -> bytes:
    """``text`` without a character that is cut at its end."""
    return text.decode("utf-8", "ignore").encode() if _is_cut(text) else text


def _is_cut(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False
