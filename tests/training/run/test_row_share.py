import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.errors import ProxyByteError
from proxybyte.training.run.data import RowOrder, RowShare, fetch, fetch_ahead, read_rows
from proxybyte.training.run.metrics import Count
from proxybyte.training.stream.mixed_view import MixedViewDataset
from proxybyte.training.stream.placement import Lengths
from proxybyte.training.stream.plan import BudgetUnit, PlanConfig, StreamPlan
from proxybyte.training.stream.prepared import PreparedSplit

orders = st.builds(
    lambda per_step, steps, shuffle, seed, cuts: RowOrder(
        per_step, steps, shuffle, seed, tuple(sorted({cut % steps for cut in cuts} - {0}))
    ),
    per_step=st.integers(1, 6),
    steps=st.integers(1, 40),
    shuffle=st.integers(1, 50),
    seed=st.integers(0, 2**40),
    cuts=st.lists(st.integers(0, 1000), max_size=2),
)


@given(orders)
def test_every_row_of_the_run_is_trained_on_once(order):
    rows = np.concatenate([order.rows(step) for step in range(order.steps)])
    assert sorted(rows.tolist()) == list(range(order.steps * order.rows_per_step))


@given(orders)
def test_rows_stay_within_their_phase_and_near_their_place(order):
    phase_of = np.searchsorted(order.phases, np.arange(order.steps), side="right")
    for step in range(order.steps):
        home = order.rows(step) // order.rows_per_step
        assert (abs(home - step) < order.shuffle_steps).all()
        assert (phase_of[home] == phase_of[step]).all()


def test_the_order_is_that_of_the_seed_and_mixes_the_stretch():
    order = RowOrder(8, 64, 64, seed=3)
    assert np.array_equal(order.rows(17), RowOrder(8, 64, 64, seed=3).rows(17))
    assert not np.array_equal(order.rows(17), RowOrder(8, 64, 64, seed=4).rows(17))
    # 8 rows drawn from 512 without order: their mean distance is far from that of neighbours.
    assert np.mean([np.diff(np.sort(order.rows(step))).mean() for step in range(64)]) > 20
    # The order must stay as it is: runs are resumed across versions.
    assert order.rows(17).tolist() == [303, 271, 190, 279, 489, 207, 289, 424]


@given(size=st.integers(1, 8), rows=st.integers(1, 6), micro=st.integers(1, 5), step=st.integers(0, 49))
def test_the_processes_share_every_row_of_a_step_once(size, rows, micro, step):
    order = RowOrder(size * rows * micro, 50, 8)
    shares = [RowShare(order, rows, rank, size) for rank in range(size)]
    assert {share.micro_batches for share in shares} == {micro}
    taken = [row for m in range(micro) for share in shares for row in share.rows(step, m)]
    assert taken == order.rows(step).tolist()


@given(size=st.integers(1, 8), rows=st.integers(1, 6), step=st.integers(0, 49))
def test_any_number_of_processes_computes_the_same_micro_batches(size, rows, step):
    order = RowOrder(size * rows, 50, 8)
    alone = RowShare(order, rows)
    shares = [RowShare(order, rows, rank, size) for rank in range(size)]
    assert [share.rows(step, 0) for share in shares] == [alone.rows(step, m) for m in range(size)]


@pytest.fixture(scope="module")
def dataset(prepared):
    split = PreparedSplit(prepared / "train")
    config = PlanConfig(row_length=64, budget=2048, budget_unit=BudgetUnit.SYMBOLS)
    return MixedViewDataset(split, StreamPlan(Lengths(split.n_bytes, split.n_symbols), config))


def test_fetching_ahead_yields_the_rows_of_each_step_in_order(dataset):
    share = RowShare(RowOrder(4, 8, 4), 2)
    steps = list(fetch_ahead(dataset, share, range(3, 7)))
    assert [[batch.rows for batch in step.batches] for step in steps] == [
        [tuple(share.rows(step, 0)), tuple(share.rows(step, 1))] for step in range(3, 7)
    ]


def test_counts_are_those_of_a_symbol_by_symbol_count(dataset):
    step = fetch(dataset, RowShare(RowOrder(8, 4, 1), 4), 2)
    for batch, counts in zip(step.batches, step.counts, strict=True):
        symbols = batch.input_ids.flatten().tolist()
        assert counts[Count.RAW_SYMBOLS] == sum(64 <= s < 320 for s in symbols) == counts[Count.RAW_BYTES]
        assert counts[Count.COMPRESSED_SYMBOLS] == sum(s >= 320 for s in symbols)
        assert counts[Count.RAW_DOCUMENTS] == symbols.count(13)
        assert counts[Count.COMPRESSED_DOCUMENTS] == symbols.count(15)
        assert counts[Count.TARGETS] == sum(label >= 0 for row in batch.labels.tolist() for label in row[1:])
    assert np.all(step.counts[:, Count.COMPRESSED_BYTES] > step.counts[:, Count.COMPRESSED_SYMBOLS])


def test_every_text_symbol_is_a_target(dataset):
    for batch in fetch(dataset, RowShare(RowOrder(32, 1), 32), 0).batches:
        text = (batch.input_ids >= 64).sum()
        assert ((batch.labels[:, 1:] >= 64).sum()) == text


def test_rows_that_cannot_be_read_are_named(dataset):
    with pytest.raises(ProxyByteError, match=r"row\(s\) 31, 32, 33 cannot be read from .*train: row 32 is not in"):
        read_rows(dataset, [31, 32, 33])
