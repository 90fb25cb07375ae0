"""Bits per byte: what a model, whatever its symbols, pays for one byte of held-out text.

    BPB = (sum over documents of -log2 p(symbols of the document | its opening)) / (number of their raw bytes)

The sum runs over the symbols that spell the document, not over sentinels, each document on its own after its own
opening (``<raw>``, ``<comp>`` or a tokenizer's beginning of text). So a byte model, its compressed view, a tokenizer
model and a file compressor are on one scale: the bits that an arithmetic coder driven by the model would write for
each byte of text (after Gao et al., The Pile, arXiv 2101.00027).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.eval.scoring import DEFAULT_SCORING, Scoring, Sequences, bare, position_limit, score_sequences
from proxybyte.symbols import COMPRESSED_OFFSET, View, document_opening

LONGEST_TOKEN_WINDOW = 4096
"""Positions of a tokenizer model's window when nobody says: a large vocabulary's logits for more would not fit."""


@dataclass(frozen=True)
class BPBResult:
    """Bits per byte of a set of documents.

    Attributes:
        document_bits: bits of each document, float64, shape ``(D,)``, in the order given.
        document_bytes: raw bytes of each document, int64, shape ``(D,)``.
        n_symbols: symbols scored: bytes, codes or tokens.
        n_positions: symbols that the model read for it, openings and repeated context included; 0 for what is no model.
        seconds: time it took.
    """

    document_bits: np.ndarray = field(repr=False, compare=False)
    document_bytes: np.ndarray = field(repr=False, compare=False)
    n_symbols: int
    n_positions: int
    seconds: float

    @property
    def bits(self) -> float:
        """Bits of all documents."""
        return math.fsum(self.document_bits)

    @property
    def n_bytes(self) -> int:
        """Raw bytes of all documents."""
        return int(self.document_bytes.sum())

    @property
    def bits_per_byte(self) -> float:
        """The figure itself."""
        return self.bits / self.n_bytes

    def as_dict(self) -> dict[str, float | int]:
        """The figures for JSON, without those of each document."""
        return {
            "bits_per_byte": self.bits_per_byte,
            "bits": self.bits,
            "bytes": self.n_bytes,
            "documents": len(self.document_bytes),
            "symbols": self.n_symbols,
            "bytes_per_symbol": self.n_bytes / self.n_symbols,
            "positions": self.n_positions,
            "seconds": round(self.seconds, 3),
        }


def bits_per_byte(model: Any, documents: Sequence[bytes], scoring: Scoring = DEFAULT_SCORING) -> BPBResult:
    """Bits per byte of raw documents under a model whose symbols are bytes.

    Args:
        model: ``ProxyByteForCausalLM``, or a plain causal model that reads symbols ``0 .. 319`` (a native export).
        documents: any bytes each; empty ones cost nothing.
        scoring: windows, batch size, progress bar.

    Raises:
        ProxyByteError: if there is no byte to score, or the windows make no sense.
    """
    sizes = np.array([len(document) for document in documents], dtype=np.int64)
    sequences = Sequences(
        prefix=document_opening(bare(model).config, View.RAW),
        lengths=sizes,
        read=lambda i, start, end: encode_bytes(memoryview(documents[i])[start:end], np.int64),
        raw=True,
    )
    return _result(model, sequences, sizes, scoring)


def compressed_bits_per_byte(
    model: Any, codes: Sequence[np.ndarray], byte_counts: Sequence[int], scoring: Scoring = DEFAULT_SCORING
) -> BPBResult:
    """Bits per byte of text of the same documents in their compressed view, ``<comp>`` and symbols ``320 + c``.

    Args:
        model: ``ProxyByteForCausalLM`` with rows for the compressed symbols.
        codes: a compressor's codes for each document, numbered from 0, shape ``(symbols,)``.
        byte_counts: bytes that each spells.
        scoring: windows (counted in symbols), batch size, progress bar.

    Raises:
        ProxyByteError: if a code has no row in the model, or there is no byte to score.
    """
    rows = embedding_rows(model)
    for number, code in enumerate(codes):
        if len(code) and int(code.max()) + COMPRESSED_OFFSET >= rows:
            raise ProxyByteError(
                f"document {number} has code {int(code.max())} but the model has rows for {rows - COMPRESSED_OFFSET} "
                "compressed symbols: use the compressor that it was trained with"
            )
    sequences = Sequences(
        prefix=document_opening(bare(model).config, View.COMPRESSED),
        lengths=np.array([len(code) for code in codes], dtype=np.int64),
        read=lambda i, start, end: np.asarray(codes[i][start:end], dtype=np.int64) + COMPRESSED_OFFSET,
    )
    return _result(model, sequences, np.asarray(byte_counts, dtype=np.int64), scoring)


def translation_bits_per_byte(
    model: Any,
    documents: Sequence[bytes],
    codes: Sequence[np.ndarray],
    target: View,
    scoring: Scoring = DEFAULT_SCORING,
) -> BPBResult:
    """Bits per byte of text of documents in one view, with the other in the context, as in a translation pair.

    The rows asked are those that the view alone is asked for (:func:`bits_per_byte`, :func:`compressed_bits_per_byte`),
    so that the difference from it is what the context is worth.

    Args:
        model: ``ProxyByteForCausalLM`` with rows for the compressed symbols.
        documents: bytes of each.
        codes: a compressor's codes of each, numbered from 0.
        target: the view that is scored.
        scoring: windows that hold both views of each document, batch size, progress bar.

    Raises:
        ProxyByteError: if there is no byte to score.
    """
    raw = [encode_bytes(document, np.int64) for document in documents]
    coded = [np.asarray(code, dtype=np.int64) + COMPRESSED_OFFSET for code in codes]
    given, wanted = (coded, raw) if target is View.RAW else (raw, coded)
    other = View.COMPRESSED if target is View.RAW else View.RAW
    between = np.array([other.close, target.open], dtype=np.int64)
    whole = [np.concatenate([context, between, answer]) for context, answer in zip(given, wanted, strict=True)]
    sequences = Sequences(
        prefix=document_opening(bare(model).config, other),
        lengths=np.array([len(ids) for ids in whole], dtype=np.int64),
        read=lambda i, start, end: whole[i][start:end],
        score_from=np.array([len(context) + len(between) for context in given], dtype=np.int64),
        raw=target is View.RAW,
    )
    result = _result(model, sequences, np.array([len(document) for document in documents], dtype=np.int64), scoring)
    return replace(result, n_symbols=sum(map(len, wanted)))


def tokenizer_bits_per_byte(
    model: Any, tokenizer: Any, documents: Sequence[bytes], scoring: Scoring = DEFAULT_SCORING
) -> BPBResult:
    """Bits per byte of text under a tokenizer model: the baseline that a byte model is compared with.

    Each document opens with the tokenizer's ``bos`` token, or its ``eos`` token where it has no other.

    Args:
        model: any causal model of Transformers.
        tokenizer: its tokenizer.
        documents: UTF-8 text.
        scoring: windows (counted in tokens), batch size, progress bar.

    Raises:
        ProxyByteError: if a document is not UTF-8, does not come back unchanged from its tokens (then the bits would
            be those of another text), or the tokenizer has neither token.
    """
    opening = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if opening is None:
        raise ProxyByteError("the tokenizer has neither a bos nor an eos token to open a document with")
    if scoring.window is None:
        scoring = replace(scoring, window=min(position_limit(bare(model)), LONGEST_TOKEN_WINDOW) - 1)
    tokens = [_tokenize(tokenizer, number, document) for number, document in enumerate(documents)]
    sequences = Sequences(
        prefix=(opening,),
        lengths=np.array([len(ids) for ids in tokens], dtype=np.int64),
        read=lambda i, start, end: tokens[i][start:end],
    )
    return _result(model, sequences, np.array([len(document) for document in documents], dtype=np.int64), scoring)


def embedding_rows(model: Any) -> int:
    """Symbols that the model can read."""
    return bare(model).get_input_embeddings().num_embeddings


def _tokenize(tokenizer: Any, number: int, document: bytes) -> np.ndarray:
    try:
        text = document.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProxyByteError(
            f"document {number} is not UTF-8 (byte {error.start}), and a tokenizer reads nothing else: leave it out"
        ) from None
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
        raise ProxyByteError(
            f"the tokenizer changes document {number} (its tokens spell another text), so its bits per byte mean "
            "nothing: leave that document out or use a lossless tokenizer"
        )
    return np.asarray(ids, dtype=np.int64)


def _result(model: Any, sequences: Sequences, byte_counts: np.ndarray, scoring: Scoring) -> BPBResult:
    if not byte_counts.sum():
        raise ProxyByteError("there is no byte to score: every document is empty")
    started = time.perf_counter()
    scores = score_sequences(model, sequences, scoring)
    return BPBResult(
        document_bits=scores.nats / math.log(2),
        document_bytes=byte_counts,
        n_symbols=int(sequences.lengths.sum()),
        n_positions=scores.n_positions,
        seconds=time.perf_counter() - started,
    )
