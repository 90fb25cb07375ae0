"""The columns of a prepared split, from documents and codes, without a Python loop over symbols.

Codes are checked against the compressor's contract and, as asked, by decoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proxybyte.artefacts import Column
from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors.protocol import CannotEncode, Compressor, code_dtype
from proxybyte.training.compressors.symbol_bytes import SymbolBytes, symbol_bytes_of

if TYPE_CHECKING:
    from datasets import Features

BORDER_PARTS = 16
NUM_BORDERS = BORDER_PARTS - 1
NO_CODE = -1
"""``n_symbols`` of a document that the compressor could not code."""


def prepared_features(num_symbols: int) -> "Features":
    """The columns of a prepared split (docs/architecture.md); ``.arrow_schema`` is their Arrow schema."""
    from datasets import Features, LargeList, List, Value

    return Features(
        {
            Column.TEXT: Value("large_binary"),
            Column.SYMBOLS: LargeList(Value(np.dtype(code_dtype(num_symbols)).name)),
            Column.N_BYTES: Value("int64"),
            Column.N_SYMBOLS: Value("int64"),
            Column.BORDERS: List(Value("uint32"), length=NUM_BORDERS),
            Column.SOURCE: Value("string"),
        }
    )


def sixteenths(ends: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Byte offsets at each sixteenth of every document's symbols.

    Args:
        ends: how many bytes are spelled up to the end of each symbol, int64 of shape ``(counts.sum(),)``; over all
            documents, one after another.
        counts: symbols of each document, int64; 0 where it has none, or they have no ends.

    Returns:
        uint32 of shape ``(documents, 15)``: element ``[d, j - 1]`` is the number of the document's bytes that its first
        ``floor(n_symbols * j / 16)`` symbols spell, 0 where that is no symbol.
    """
    before = counts[:, None] * np.arange(1, BORDER_PARTS) // BORDER_PARTS
    spelled = np.concatenate([np.zeros(1, np.int64), ends])
    first = (np.cumsum(counts) - counts)[:, None]
    return (spelled[first + before] - spelled[first]).astype(np.uint32)


def prepared_batch(
    schema: pa.Schema, columns: pa.Table, counts: np.ndarray, symbols: np.ndarray, borders: np.ndarray
) -> pa.RecordBatch:
    """One record batch of a prepared split.

    Args:
        schema: the schema of :func:`prepared_features`.
        columns: ``text`` and ``source`` of ``n`` documents, as the corpus holds them.
        counts: symbols of each document, int64 of shape ``(n,)``; ``NO_CODE`` for one that stays raw.
        symbols: of all documents one after another.
        borders: what :func:`sixteenths` gave, shape ``(n, 15)``.
    """
    value_type = schema.field(Column.SYMBOLS).type.value_type
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(np.maximum(counts, 0), out=offsets[1:])
    text = columns[Column.TEXT].combine_chunks().cast(pa.large_binary())
    arrays = {
        Column.TEXT: text,
        Column.SYMBOLS: pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(symbols, type=value_type)),
        Column.N_BYTES: pc.binary_length(text),
        Column.N_SYMBOLS: pa.array(counts),
        Column.BORDERS: pa.FixedSizeListArray.from_arrays(pa.array(borders.ravel()), NUM_BORDERS),
        Column.SOURCE: columns[Column.SOURCE].combine_chunks().cast(pa.string()),
    }
    return pa.record_batch([arrays[name] for name in schema.names], schema=schema)


@dataclass(frozen=True)
class Coded:
    """A batch of ``n`` documents in both views.

    Attributes:
        counts: symbols of each document, int64 of shape ``(n,)``; ``NO_CODE`` for one that is shown raw alone.
        symbols: of all documents one after another.
        borders: uint32 of shape ``(n, 15)`` (:func:`sixteenths`).
        has_borders: whether any document has borders.
        reasons: by document, why it has no code.
    """

    counts: np.ndarray
    symbols: np.ndarray
    borders: np.ndarray
    has_borders: bool
    reasons: dict[int, str]


class Coder:
    """A compressor, and what is looked at in the codes that it gives.

    Args:
        compressor: the compressor.
        every: every how many documents one is decoded again and compared; 0 for none.
    """

    def __init__(self, compressor: Compressor, every: int) -> None:
        self._compressor = compressor
        self._every = every if compressor.lossless else 0
        self._symbol_bytes = symbol_bytes_of(compressor)
        self._dtype = code_dtype(compressor.num_symbols)

    def code(self, texts: Sequence[bytes]) -> Coded:
        """Codes of ``texts``; a document that cannot be coded, or would not come back, has none.

        Raises:
            ProxyByteError: if codes or borders break the compressor's contract.
        """
        codes: list[np.ndarray] = []
        reasons: dict[int, str] = {}
        for place, result in enumerate(self._compressor.encode_batch(texts)):
            if isinstance(result, CannotEncode) or not len(result):
                reasons[place] = str(result) if isinstance(result, CannotEncode) else "the compressor gave no symbols"
                codes.append(np.zeros(0, self._dtype))
            else:
                codes.append(result)
        if self._symbol_bytes is not None:
            together = self._check_together(texts, codes, reasons, self._symbol_bytes)
            if together is not None:
                return together
        return self._check_each(texts, codes, reasons)

    def _check_together(
        self, texts: Sequence[bytes], codes: list[np.ndarray], reasons: dict[int, str], symbol_bytes: SymbolBytes
    ) -> Coded | None:
        """All documents at once, where each symbol spells the same wherever it stands.

        Returns:
            ``None`` if something is wrong with one of them.
        """
        coded = [place for place in range(len(texts)) if place not in reasons]
        counts = np.fromiter(map(len, codes), np.int64, len(codes))
        symbols = _joined(codes)
        if not coded or int(symbols.max()) >= self._compressor.num_symbols:
            return None
        first = (np.cumsum(counts) - counts)[:, None]
        spelled = symbol_bytes.before(symbols, first + counts[:, None] * np.arange(BORDER_PARTS + 1) // BORDER_PARTS)
        spelled -= spelled[:, :1].copy()
        sizes = np.fromiter((len(texts[place]) for place in coded), np.int64, len(coded))
        if not np.array_equal(spelled[coded, BORDER_PARTS], sizes):
            return None
        looked_at = [place for place in coded if self._every and place % self._every == 0]
        chosen = symbols if len(looked_at) == len(coded) else _joined([codes[place] for place in looked_at])
        text = b"".join([texts[place] for place in looked_at]) if len(looked_at) != 1 else texts[looked_at[0]]
        if not symbol_bytes.spells(chosen, text):
            return None
        counts[list(reasons)] = NO_CODE
        borders = spelled[:, 1:BORDER_PARTS].astype(np.uint32)
        return Coded(counts, symbols.astype(self._dtype, copy=False), borders, True, reasons)

    def _check_each(self, texts: Sequence[bytes], codes: list[np.ndarray], reasons: dict[int, str]) -> Coded:
        ends: list[np.ndarray] = []
        with_ends = np.zeros(len(texts), np.int64)
        n_bytes = 0
        for place, (text, code) in enumerate(zip(texts, codes, strict=True)):
            if place not in reasons and self._every and place % self._every == 0:
                difference = self._difference(text, code)
                if difference is not None:
                    reasons[place] = difference
            if place in reasons:
                codes[place] = code[:0]
                continue
            its_ends = self._ends(text, code)
            if its_ends is not None:
                with_ends[place] = len(its_ends)
                ends.append(its_ends + n_bytes)
                n_bytes += len(text)
        counts = np.fromiter(map(len, codes), np.int64, len(codes))
        counts[list(reasons)] = NO_CODE
        borders = sixteenths(_joined(ends), with_ends)
        return Coded(counts, _joined(codes).astype(self._dtype, copy=False), borders, bool(ends), reasons)

    def _difference(self, text: bytes, codes: np.ndarray) -> str | None:
        """Why ``codes`` do not spell ``text``, or ``None``."""
        try:
            same = self._compressor.decode(codes) == text
        except ProxyByteError as error:
            return f"its code cannot be decoded: {error}"
        return None if same else "its code decodes to other bytes"

    def _ends(self, text: bytes, codes: np.ndarray) -> np.ndarray | None:
        """Symbol ends of one document, checked.

        Raises:
            ProxyByteError: if codes or borders break the compressor's contract.
        """
        name, limit = self._compressor.name, self._compressor.num_symbols
        if codes.ndim != 1 or int(codes.max()) >= limit:
            raise ProxyByteError(f"compressor {name} gave codes outside 0 to {limit - 1}: this is a fault in it")
        ends = self._compressor.borders(codes)
        if ends is not None and (len(ends) != len(codes) or int(ends[-1]) != len(text)):
            raise ProxyByteError(f"compressor {name} gave borders that do not fit its codes: this is a fault in it")
        return ends


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
