"""Rows without document masking, and with one pair of sentinels for both views: one thing changes, no other."""

import numpy as np
import pytest

from proxybyte.symbols import IGNORE_INDEX, Special
from proxybyte.training.stream.mixed_view import MixedViewDataset
from proxybyte.training.stream.placement import Lengths
from proxybyte.training.stream.plan import PlanConfig, StreamPlan
from proxybyte.training.stream.schedule import Pairing, ScheduleConfig


@pytest.fixture
def batch_of(prepared_split):
    """All rows of a mixed plan of 30 documents under the given options."""
    rng = np.random.default_rng(2)
    split = prepared_split([rng.integers(0, 256, rng.integers(1, 150), dtype=np.uint8).tobytes() for _ in range(30)])
    schedule = ScheduleConfig(rate=0.6, pairing=Pairing.RANDOM, warmup=0.0)

    def make(**options):
        config = PlanConfig(row_length=64, schedule=schedule, **options)
        plan = StreamPlan(Lengths(split.n_bytes, split.n_symbols, split.borders), config)
        return MixedViewDataset(split, plan).batch(range(plan.num_rows))

    return make


@pytest.mark.parametrize("prefix", [False, True])
def test_without_masking_positions_count_the_row_and_all_else_stays(batch_of, prefix):
    masked = batch_of(document_prefix=prefix)
    seen = batch_of(document_prefix=prefix, document_masking=False)
    assert (seen.position_ids == np.arange(64)).all()
    assert (masked.position_ids != seen.position_ids).any()
    assert (seen.input_ids == masked.input_ids).all()
    assert (seen.labels == masked.labels).all()


@pytest.mark.parametrize("prefix", [False, True])
def test_without_view_sentinels_compressed_documents_wear_those_of_raw_ones(batch_of, prefix):
    told = batch_of(document_prefix=prefix)
    hidden = batch_of(document_prefix=prefix, view_sentinels=False)
    swapped = np.array([{14: 12, 15: 13}.get(symbol, symbol) for symbol in range(told.input_ids.max() + 1)])
    assert (told.input_ids == Special.COMPRESSED_OPEN).any()
    assert (hidden.input_ids == swapped[told.input_ids]).all()
    targets = told.labels != IGNORE_INDEX
    assert ((hidden.labels != IGNORE_INDEX) == targets).all()
    assert (hidden.labels[targets] == swapped[told.labels[targets]]).all()
    assert (hidden.position_ids == told.position_ids).all()
    assert hidden.text_bytes == told.text_bytes
