"""The columns of a prepared split, from documents and codes, without a Python loop over symbols."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proxybyte.artefacts import Column
from proxybyte.training.compressors.protocol import code_dtype

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
