"""The report counts what the rows really hold."""

import numpy as np
import pytest

from proxybyte.symbols import View
from proxybyte.training.stream.mixed_view import MixedViewDataset
from proxybyte.training.stream.placement import Lengths
from proxybyte.training.stream.plan import PlanConfig, StreamPlan
from proxybyte.training.stream.plan_report import report
from proxybyte.training.stream.schedule import Pairing, ScheduleConfig


@pytest.mark.parametrize("pairing", list(Pairing))
def test_reported_shares_equal_those_counted_in_the_rows(prepared_split, pairing):
    rng = np.random.default_rng(0)
    split = prepared_split([bytes(rng.integers(32, 127, rng.integers(1, 300))) for _ in range(100)], raw_only=(0, 1))
    schedule = ScheduleConfig(pairing=pairing, hand_off=0.3, decay=0.2, rate=0.7)
    lengths = Lengths(split.n_bytes, split.n_symbols, split.borders)
    plan = StreamPlan(lengths, PlanConfig(row_length=32, schedule=schedule))
    dataset = MixedViewDataset(split, plan)
    batch = dataset.batch(range(len(dataset)))
    told = report(plan)
    symbols = {view: sum(share.symbols for share in told.shares if share.view is view) for view in View}
    text = {view: sum(share.text_bytes for share in told.shares if share.view is view) for view in View}
    assert symbols[View.COMPRESSED] == (batch.input_ids >= 320).sum()
    assert symbols[View.RAW] == ((batch.input_ids >= 64) & (batch.input_ids < 320)).sum()
    for view in View:
        assert text[view] == pytest.approx(batch.text_bytes[view])
    assert {share.phase for share in told.shares} == {"warmup", "steady", "decay"}
    assert told.raw_only == 2
    assert told.epochs == 1.0


def test_document_byte_and_symbol_shares_differ_as_the_ratio_says():
    n_bytes = np.full(10_000, 2900, np.uint32)
    lengths = Lengths(n_bytes, np.full(10_000, 1000, np.int32))
    plan = StreamPlan(lengths, PlanConfig(schedule=ScheduleConfig(warmup=0.0, rate=0.9)))
    raw, compressed = report(plan).shares
    assert compressed.views / (raw.views + compressed.views) == pytest.approx(0.9, abs=1e-3)
    assert compressed.symbols / (raw.symbols + compressed.symbols) == pytest.approx(0.756, abs=2e-3)
    assert "90.0%" in report(plan).table()
