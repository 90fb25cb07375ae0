"""Columns of a prepared split against plain-Python constructions."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxybyte.training.prepare.columns import prepared_batch, prepared_features, sixteenths

symbol_lengths = st.lists(st.integers(0, 9), min_size=1, max_size=70)
ends_or_none = st.one_of(st.none(), symbol_lengths.map(lambda lengths: np.cumsum(lengths)))


def border(ends: np.ndarray | None, part: int) -> int:
    """Bytes spelled by the first ``part`` sixteenths of the symbols."""
    count = 0 if ends is None else len(ends) * part // 16
    return int(ends[count - 1]) if ends is not None and count else 0


@settings(deadline=None)
@given(st.lists(ends_or_none, max_size=8))
def test_borders_are_the_ends_of_the_first_sixteenths(ends):
    counts = np.array([0 if each is None else len(each) for each in ends], dtype=np.int64)
    steps = [np.diff(each, prepend=0) for each in ends if each is not None]
    found = sixteenths(np.cumsum(np.concatenate([np.zeros(0, np.int64), *steps])), counts)
    assert found.dtype == np.uint32
    assert found.tolist() == [[border(each, part) for part in range(1, 16)] for each in ends]


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=60), st.booleans()), max_size=8))
def test_batch_holds_what_went_in(documents):
    symbols = np.frombuffer(b"".join(text for text, coded in documents if coded), np.uint8)
    counts = np.array([len(text) if coded else -1 for text, coded in documents], dtype=np.int64)
    borders = sixteenths(np.arange(1, len(symbols) + 1), np.maximum(counts, 0))
    columns = pa.table(
        {
            "text": pa.array([text for text, _ in documents], pa.large_binary()),
            "source": pa.array([f"s{n}" for n in range(len(documents))], pa.string()),
        }
    )
    batch = prepared_batch(prepared_features(256).arrow_schema, columns, counts, symbols, borders)
    batch.validate(full=True)
    assert batch.to_pylist() == [
        {
            "text": text,
            "symbols": list(text) if coded else [],
            "n_bytes": len(text),
            "n_symbols": len(text) if coded else -1,
            "borders": [len(text) * part // 16 if coded else 0 for part in range(1, 16)],
            "source": f"s{number}",
        }
        for number, (text, coded) in enumerate(documents)
    ]


@pytest.mark.parametrize(
    ("num_symbols", "kind"), [(256, pa.uint8()), (257, pa.uint16()), (65536, pa.uint16()), (65537, pa.uint32())]
)
def test_symbols_take_the_smallest_type(num_symbols, kind):
    schema = prepared_features(num_symbols).arrow_schema
    assert schema.field("symbols").type == pa.large_list(kind)
    assert schema.field("text").type == pa.large_binary()
    assert schema.field("borders").type == pa.list_(pa.uint32(), 15)
