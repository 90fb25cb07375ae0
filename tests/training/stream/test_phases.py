"""Phases are shares of optimizer steps in every budget unit.

The schedules here make a phase visible in each document: at a rate of one half every document is a pair while pairs
are on and none is while they are off. So the borders are read from the stream itself, symbol by symbol.
"""

import numpy as np
import pytest

from proxybyte.training.stream.placement import Form, Lengths
from proxybyte.training.stream.plan import PlanConfig, StreamPlan
from proxybyte.training.stream.plan_report import report
from proxybyte.training.stream.schedule import Pairing, Phase, Phases, ScheduleConfig

TRANSLATION = [Form.RAW_THEN_COMPRESSED, Form.COMPRESSED_THEN_RAW]
PARALLEL = [Form.PARALLEL_RAW, Form.PARALLEL_COMPRESSED]
BUDGETS = {"epochs": 1.7, "text_bytes": 9e6, "symbols": 4e6}


@pytest.fixture(scope="module")
def lengths():
    rng = np.random.default_rng(0)
    n_bytes = rng.integers(200, 8000, 3000).astype(np.uint32)
    return Lengths(n_bytes, (n_bytes / 3.3).astype(np.int32))


def step_of(plan, placement, rows_per_step):
    """The step (from 0) that shows a placement's first symbol: a row holds its length less one."""
    return int(plan.placements.start[placement]) // (plan.config.row_length - 1) // rows_per_step


@pytest.mark.parametrize("unit", BUDGETS)
@pytest.mark.parametrize("rows_per_step", [1, 7])
def test_pairs_end_and_begin_where_the_shares_of_steps_say(lengths, unit, rows_per_step):
    schedule = ScheduleConfig(
        rate=0.5,
        warmup=0.2,
        warmup_rate=0.5,
        warmup_pairing=Pairing.RANDOM,
        decay=0.3,
        decay_rate=0.5,
        decay_pairing=Pairing.PARALLEL,
    )
    config = PlanConfig(row_length=256, budget=BUDGETS[unit], budget_unit=unit, schedule=schedule)
    plan = StreamPlan(lengths, config, rows_per_step)
    form = plan.placements.form
    stream = plan.placements.start[-1]  # of a budget in symbols, the last document ends beyond it
    rows = int(BUDGETS[unit]) // 256 if unit == "symbols" else int(np.ceil(stream / 255))
    total = rows // rows_per_step
    first_without = int(np.flatnonzero(~np.isin(form, TRANSLATION))[0])
    first_parallel = int(np.flatnonzero(np.isin(form, PARALLEL))[0])
    assert (~np.isin(form[first_without:], TRANSLATION)).all()
    assert np.isin(form[first_parallel:], PARALLEL).all()
    # The document that lies on a border keeps its form to its end; a run of thousands of steps is settled to 1/4096.
    longest = 1 + int(lengths.n_bytes.max() * 1.31) // 255 // rows_per_step
    slack = 1 + total / 4096
    assert -slack <= step_of(plan, first_without, rows_per_step) - 0.2 * total <= slack + longest
    assert step_of(plan, first_without - 1, rows_per_step) < 0.2 * total + slack
    assert -slack <= step_of(plan, first_parallel, rows_per_step) - 0.7 * total <= slack + longest
    assert step_of(plan, first_parallel - 1, rows_per_step) < 0.7 * total + slack


@pytest.mark.parametrize("unit", BUDGETS)
def test_the_plan_stores_the_steps_at_which_its_documents_change(lengths, unit):
    schedule = ScheduleConfig(rate=0.5, warmup_rate=0.5, decay=0.25, decay_rate=0.5, decay_pairing=Pairing.PARALLEL)
    plan = StreamPlan(lengths, PlanConfig(budget=BUDGETS[unit], budget_unit=unit, row_length=256, schedule=schedule), 3)
    form = plan.placements.form
    for phase, forms in ((Phase.STEADY, TRANSLATION), (Phase.DECAY, PARALLEL)):
        changes = int(np.flatnonzero(np.isin(form, forms) != np.isin(form[0], forms))[0])
        begins = plan.phases.span(phase)[0]
        # Documents that begin before the border still wear the form of the phase before.
        assert step_of(plan, changes - 1, 3) < begins <= step_of(plan, changes, 3)
        assert plan.begins[phase] == changes


def test_the_case_of_the_report_ten_percent_raw_in_the_steady_phase_and_pairs_over_a_fifth():
    rng = np.random.default_rng(0)
    n_bytes = rng.integers(200, 8000, 20_000).astype(np.uint32)
    lengths = Lengths(n_bytes, (n_bytes / 3.3).astype(np.int32))
    for unit, budget in (("epochs", 1.0), ("text_bytes", float(n_bytes.sum())), ("symbols", 3.4e7)):
        plan = StreamPlan(lengths, PlanConfig(budget=budget, budget_unit=unit))
        pairs = np.flatnonzero(np.isin(plan.placements.form, TRANSLATION))
        assert plan.placements.start[pairs[-1]] / plan.placements.start[-1] == pytest.approx(0.2, abs=0.002)
        steady = {share.view: share.views for share in report(plan).shares if share.phase is Phase.STEADY}
        assert steady["raw"] / sum(steady.values()) == pytest.approx(0.1, abs=0.001)


def test_documents_before_a_border_are_those_of_a_document_by_document_count(lengths):
    """The warm-up rate by hand: no block is longer than 1/256 of the run, so the rate is off by that at most."""
    schedule = ScheduleConfig(rate=1.0, warmup=0.4, warmup_rate=0.0, warmup_pairing=Pairing.NONE)
    plan = StreamPlan(lengths, PlanConfig(row_length=256, schedule=schedule, budget=3.0))
    begin = plan.placements.start[:-1] / (plan.num_rows * 255)
    compressed = plan.placements.form == Form.COMPRESSED
    for low in np.arange(0, 0.4, 0.1):
        inside = (begin >= low) & (begin < low + 0.1)
        # Half way through the stretch the rate is (low + 0.05) / 0.4; documents are counted, raw ones are longer.
        rates = begin[inside] / 0.4
        assert compressed[inside].mean() == pytest.approx(rates.mean(), abs=0.02)
    assert compressed[begin > 0.41].all()


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 999])
@pytest.mark.parametrize(("warmup", "decay"), [(0, 0), (0.2, 0), (0, 0.5), (0.3, 0.7), (1, 0), (0, 1)])
def test_every_step_is_in_one_phase_and_phases_come_in_order(steps, warmup, decay):
    phases = Phases.of(steps, warmup, decay)
    names = [phases.at(step) for step in range(steps)]
    assert names == sorted(names, key=list(Phase).index)
    assert abs(names.count(Phase.WARMUP) - warmup * steps) <= 0.5
    assert abs(names.count(Phase.DECAY) - decay * steps) <= 1
    for phase in Phase:
        first, end = phases.span(phase)
        assert names[first:end] == [phase] * (end - first)


def test_the_decay_phase_has_a_pairing_of_its_own_or_that_of_the_steady_phase():
    own = ScheduleConfig(pairing=Pairing.PARALLEL, decay=0.5, decay_pairing=Pairing.NONE)
    same = ScheduleConfig(pairing=Pairing.PARALLEL, decay=0.5)
    assert own.at(0.4).pairing is Pairing.PARALLEL
    assert own.at(0.6).pairing is Pairing.NONE
    assert same.at(0.6).pairing is Pairing.PARALLEL
