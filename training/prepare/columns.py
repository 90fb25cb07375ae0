"""The columns of a prepared split, from documents and codes, without a Python loop over symbols."""

from collections.abc import Sequence
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


def sixteenths(ends: Sequence[np.ndarray | None]) -> np.ndarray:
    """Byte offsets at each sixteenth of every document's symbols.

    Args:
        ends: for each document the byte offset at the end of each symbol (``Compressor.borders``), or ``None``.

    Returns:
        uint32 of shape ``(documents, 15)``: element ``[d, j - 1]`` is the number of bytes that the first
        ``floor(n_symbols * j / 16)`` symbols spell, 0 where that is no symbol or the document has no borders.
    """
    lengths = np.array([0 if each is None else len(each) for each in ends], dtype=np.int64)
    before = lengths[:, None] * np.arange(1, BORDER_PARTS) // BORDER_PARTS
    flat = np.concatenate([np.zeros(1, np.int64), *(each for each in ends if each is not None)])
    first = np.cumsum(lengths) - lengths
    return flat[np.where(before > 0, first[:, None] + before, 0)].astype(np.uint32)


def prepared_batch(
    schema: pa.Schema, columns: pa.Table, codes: Sequence[np.ndarray | None], ends: Sequence[np.ndarray | None]
) -> pa.RecordBatch:
    """One record batch of a prepared split.

    Args:
        schema: the schema of :func:`prepared_features`.
        columns: ``text`` and ``source`` of the documents, as the corpus holds them.
        codes: each document's codes, ``None`` for one that stays raw.
        ends: each document's symbol ends, ``None`` where there are none.
    """
    value_type = schema.field(Column.SYMBOLS).type.value_type
    lengths = np.array([NO_CODE if each is None else len(each) for each in codes], dtype=np.int64)
    offsets = np.zeros(len(codes) + 1, dtype=np.int64)
    np.cumsum(np.maximum(lengths, 0), out=offsets[1:])
    values = np.concatenate([np.empty(0, value_type.to_pandas_dtype()), *(each for each in codes if each is not None)])
    text = columns[Column.TEXT].combine_chunks().cast(pa.large_binary())
    arrays = {
        Column.TEXT: text,
        Column.SYMBOLS: pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values, type=value_type)),
        Column.N_BYTES: pc.binary_length(text),
        Column.N_SYMBOLS: pa.array(lengths),
        Column.BORDERS: pa.FixedSizeListArray.from_arrays(pa.array(sixteenths(ends).ravel()), NUM_BORDERS),
        Column.SOURCE: columns[Column.SOURCE].combine_chunks().cast(pa.string()),
    }
    return pa.record_batch([arrays[name] for name in schema.names], schema=schema)
