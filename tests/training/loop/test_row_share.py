import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.training.metrics import Count
from proxybyte.training.mixed_view import MixedViewDataset
from proxybyte.training.placement import Lengths
from proxybyte.training.plan import BudgetUnit, PlanConfig, StreamPlan
from proxybyte.training.prepared import PreparedSplit
from proxybyte.training.rows import RowShare, fetch, fetch_ahead


@given(size=st.integers(1, 8), rows=st.integers(1, 6), micro=st.integers(1, 5), step=st.integers(0, 10**9))
def test_the_processes_share_every_row_of_a_step_once(size, rows, micro, step):
    per_step = size * rows * micro
    shares = [RowShare(per_step, rows, rank, size) for rank in range(size)]
    assert {share.micro_batches for share in shares} == {micro}
    taken = [row for m in range(micro) for share in shares for row in share.rows(step, m)]
    assert taken == list(range(step * per_step, (step + 1) * per_step))


@given(size=st.integers(1, 8), rows=st.integers(1, 6), step=st.integers(0, 10**9))
def test_any_number_of_processes_computes_the_same_micro_batches(size, rows, step):
    alone = RowShare(size * rows, rows)
    shares = [RowShare(size * rows, rows, rank, size) for rank in range(size)]
    assert [share.rows(step, 0) for share in shares] == [alone.rows(step, m) for m in range(size)]


@pytest.fixture(scope="module")
def dataset(prepared):
    split = PreparedSplit(prepared / "train")
    config = PlanConfig(row_length=64, budget=2048, budget_unit=BudgetUnit.SYMBOLS)
    return MixedViewDataset(split, StreamPlan(Lengths(split.n_bytes, split.n_symbols), config))


def test_fetching_ahead_yields_the_rows_of_each_step_in_order(dataset):
    share = RowShare(4, 2)
    steps = list(fetch_ahead(dataset, share, range(3, 7)))
    assert [[batch.rows for batch in step.batches] for step in steps] == [
        [tuple(share.rows(step, 0)), tuple(share.rows(step, 1))] for step in range(3, 7)
    ]


def test_counts_are_those_of_a_symbol_by_symbol_count(dataset):
    step = fetch(dataset, RowShare(8, 4), 2)
    for batch, counts in zip(step.batches, step.counts, strict=True):
        symbols = batch.input_ids.flatten().tolist()
        assert counts[Count.RAW_SYMBOLS] == sum(64 <= s < 320 for s in symbols) == counts[Count.RAW_BYTES]
        assert counts[Count.COMPRESSED_SYMBOLS] == sum(s >= 320 for s in symbols)
        assert counts[Count.RAW_DOCUMENTS] == symbols.count(13)
        assert counts[Count.COMPRESSED_DOCUMENTS] == symbols.count(15)
        assert counts[Count.TARGETS] == sum(label >= 0 for row in batch.labels.tolist() for label in row[1:])
    assert np.all(step.counts[:, Count.COMPRESSED_BYTES] > step.counts[:, Count.COMPRESSED_SYMBOLS])


def test_every_text_symbol_is_a_target(dataset):
    for batch in fetch(dataset, RowShare(32, 32), 0).batches:
        text = (batch.input_ids >= 64).sum()
        assert ((batch.labels[:, 1:] >= 64).sum()) == text
