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


def planned(sizes: list[int], **schedule) -> StreamPlan:
    """Raw documents of these sizes in one epoch of rows of 10 symbols, two a step."""
    lengths = Lengths(np.array(sizes), np.full(len(sizes), -1))
    return StreamPlan(lengths, PlanConfig(row_length=10, schedule=ScheduleConfig(**schedule)), rows_per_step=2)


def test_the_columns_of_shares_say_of_what():
    head = next(line for line in report(planned([20] * 40)).table().splitlines() if line.startswith("phase"))
    assert head.split("%")[1:] == [" documents  ", " bytes  ", " symbols"]


def test_the_share_of_a_phases_largest_document_is_that_counted_symbol_by_symbol():
    sizes = [3, 200, 41, 7, 95, 12, 60, 33]
    plan = planned(sizes, warmup=0.3, decay=0.2)
    stream = np.concatenate([np.full(sizes[number] + 3, number) for number in plan.placements.document])
    edges = {"warmup": (0, plan.phases.steady), "steady": (plan.phases.steady, plan.phases.decay)}
    edges["decay"] = (plan.phases.decay, plan.phases.steps)
    told = report(plan).largest
    assert set(told) == set(edges)
    for phase, (first, last) in edges.items():
        shown = stream[first * 18 : last * 18]
        assert told[phase] == np.unique(shown, return_counts=True)[1].max() / len(shown)
    warned = [phase for phase in edges if any(f"the {phase} phase" in text for text in report(plan).warnings())]
    assert warned == [phase for phase, share in told.items() if share >= 0.5]


def test_phases_without_a_step_or_a_document_are_said():
    table = report(planned([20] * 40, warmup=0.0)).table()
    assert "warmup is empty: it has no step" in table and "decay is empty: it has no step" in table
    filled = report(planned([3000], warmup=0.5)).table()
    assert "steady is empty: one document that began before fills it" in filled
    assert "is empty" not in report(planned([20] * 80, warmup=0.3, decay=0.3)).table()


def test_different_documents_are_counted_once():
    lengths = Lengths(np.full(10, 20), np.full(10, -1))
    told = report(StreamPlan(lengths, PlanConfig(row_length=10, budget=3)))
    assert (told.placements, told.seen, told.documents) == (30, 10, 10)
