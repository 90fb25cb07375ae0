"""The stream plan: shares, orders, budgets and borders, each invariant against plain Python."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxybyte.errors import ProxyByteError
from proxybyte.training.stream.placement import Form, Lengths
from proxybyte.training.stream.plan import BudgetUnit, PlanConfig, StreamPlan, choose_forms, epoch_order
from proxybyte.training.stream.schedule import Mixture, Pairing, ScheduleConfig

CONSTANT = {"warmup": 0.0}
PAIRS = (Form.RAW_THEN_COMPRESSED, Form.COMPRESSED_THEN_RAW)


def lengths_of(count: int, seed: int = 0, raw_only: float = 0.0) -> Lengths:
    rng = np.random.default_rng(seed)
    n_bytes = rng.integers(1, 3000, count).astype(np.uint32)
    n_symbols = np.maximum(n_bytes // 3, 1).astype(np.int32)
    n_symbols[rng.random(count) < raw_only] = -1
    parts = np.arange(1, 16)
    borders = np.minimum(np.maximum(n_symbols, 0)[:, None] * parts // 16 * 3, n_bytes[:, None]).astype(np.uint32)
    return Lengths(n_bytes, n_symbols, borders)


def plan_of(lengths: Lengths, schedule: dict, **config) -> StreamPlan:
    return StreamPlan(lengths, PlanConfig(schedule=ScheduleConfig(**schedule), **config))


@pytest.mark.parametrize("epochs", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("pairing", list(Pairing))
def test_every_document_appears_exactly_once_an_epoch(epochs, pairing):
    lengths = lengths_of(997)
    plan = plan_of(lengths, {**CONSTANT, "rate": 0.7, "pairing": pairing}, budget=epochs)
    placed = plan.placements
    once = placed.form != Form.PARALLEL_COMPRESSED
    for epoch in range(int(epochs)):
        documents = placed.document[once & (placed.epoch == epoch)]
        assert sorted(documents) == list(range(997))
    assert placed.epoch.max() == epochs - 1


def test_each_epoch_has_its_own_order_and_each_seed_too():
    orders = [tuple(epoch_order(100, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(100)) for order in orders)


@given(rate=st.floats(0, 1), pairing=st.sampled_from(Pairing), hand_off=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_measured_document_shares_equal_planned_ones(rate, pairing, hand_off, seed):
    lengths = lengths_of(2000)
    schedule = {**CONSTANT, "rate": rate, "pairing": pairing, "hand_off": hand_off}
    plan = plan_of(lengths, schedule, seed=seed)
    count = Counter(plan.placements.form[plan.placements.form != Form.PARALLEL_COMPRESSED].tolist())
    mixture = Mixture(rate, pairing, hand_off)
    short = int((lengths.n_symbols < 16).sum())
    slack = 25
    assert abs(count[Form.HAND_OFF] - 2000 * mixture.compressed_alone_share * hand_off) < slack + short
    alone = count[Form.HAND_OFF] + count[Form.COMPRESSED]
    assert abs(alone - 2000 * mixture.compressed_alone_share) < slack
    pairs = sum(count[form] for form in (*PAIRS, Form.PARALLEL_RAW))
    assert abs(pairs - 2000 * mixture.pair_share) < slack


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_of_zero_or_one_is_exact(rate):
    for pairing in Pairing:
        forms = choose_forms(Mixture(rate, pairing, 0.0), np.linspace(0, 1, 10001)[:-1])
        assert set(forms.tolist()) == {Form.COMPRESSED if rate else Form.RAW}


def test_random_pairs_come_in_both_orders_equally():
    plan = plan_of(lengths_of(4000), {**CONSTANT, "rate": 0.5, "pairing": Pairing.RANDOM})
    count = Counter(plan.placements.form.tolist())
    assert set(count) == set(PAIRS)
    assert abs(count[PAIRS[0]] - count[PAIRS[1]]) < 50


def test_parallel_twins_stand_side_by_side():
    plan = plan_of(lengths_of(500), {**CONSTANT, "rate": 0.8, "pairing": Pairing.PARALLEL})
    form, document = plan.placements.form, plan.placements.document
    raw = np.flatnonzero(form == Form.PARALLEL_RAW)
    assert len(raw) > 50
    assert (form[raw + 1] == Form.PARALLEL_COMPRESSED).all()
    assert (document[raw + 1] == document[raw]).all()
    assert (form == Form.PARALLEL_COMPRESSED).sum() == len(raw)


def test_documents_without_a_code_are_raw_in_every_plan():
    lengths = lengths_of(1000, raw_only=0.3)
    plan = plan_of(lengths, {**CONSTANT, "rate": 1.0, "pairing": Pairing.RANDOM, "hand_off": 0.5})
    without = lengths.n_symbols[plan.placements.document] < 0
    assert without.sum() > 200
    assert (plan.placements.form[without] == Form.RAW).all()
    assert (plan.placements.form[~without] != Form.RAW).all()


def test_the_compressed_share_rises_through_warm_up():
    plan = plan_of(lengths_of(20000), {"warmup": 0.5, "warmup_pairing": Pairing.NONE}, budget=1.0)
    compressed = plan.placements.form == Form.COMPRESSED
    tenth_of_the_stream = plan.placements.start[:-1] * 10 // plan.placements.start[-1]
    measured = np.array([compressed[tenth_of_the_stream == tenth].mean() for tenth in range(10)])
    expected = np.interp(np.arange(10) / 10 + 0.05, [0, 0.5], [0.4, 0.9])
    assert np.abs(measured - expected).max() < 0.02


@pytest.mark.parametrize("unit", list(BudgetUnit))
def test_the_budget_is_met(unit):
    lengths = lengths_of(300)
    total = int(lengths.n_bytes.sum())
    budget = {BudgetUnit.SYMBOLS: 64 * 500, BudgetUnit.TEXT_BYTES: total * 1.5, BudgetUnit.EPOCHS: 1.5}[unit]
    plan = plan_of(lengths, {"rate": 0.5}, row_length=64, budget=budget, budget_unit=unit)
    if unit is BudgetUnit.SYMBOLS:
        assert plan.num_rows == 500
        assert plan.placements.start[-2] < 500 * 63 <= plan.placements.start[-1]
    elif unit is BudgetUnit.TEXT_BYTES:
        spent = lengths.n_bytes[plan.placements.document].astype(np.int64)
        assert spent[:-1].sum() < budget <= spent.sum()
    else:
        assert len(plan.placements) == 450


def test_a_plan_does_not_depend_on_what_is_asked_of_it_first():
    lengths = lengths_of(200)
    one, other = (plan_of(lengths, {}, seed=5, budget=4.0) for _ in range(2))
    for name in ("document", "form", "part", "epoch", "start"):
        np.testing.assert_array_equal(getattr(one.placements, name), getattr(other.placements, name))


def test_hand_offs_split_at_every_sixteenth():
    plan = plan_of(lengths_of(3000), {**CONSTANT, "rate": 1.0, "hand_off": 1.0})
    parts = plan.placements.part[plan.placements.form == Form.HAND_OFF]
    assert set(parts.tolist()) == set(range(1, 16))


def test_hand_offs_without_borders_are_refused():
    lengths = lengths_of(10)
    with pytest.raises(ProxyByteError, match="hand_off needs a compressor whose symbols end at byte borders"):
        plan_of(Lengths(lengths.n_bytes, lengths.n_symbols), {"hand_off": 0.1})


def test_no_document_is_refused():
    empty = np.empty(0, np.uint32)
    with pytest.raises(ProxyByteError, match="no document"):
        plan_of(Lengths(empty, empty.astype(np.int32)), {})


@pytest.mark.parametrize(("unit", "budget"), [("epochs", 1e15), ("text_bytes", 1e17), ("symbols", 1e17)])
def test_a_plan_that_no_machine_holds_is_refused_before_it_is_laid_out(unit, budget):
    with pytest.raises(ProxyByteError, match=r"plan\.budget=1e\+1[57] .* takes .* GB of memory and this machine has"):
        plan_of(lengths_of(50), {}, budget=budget, budget_unit=unit)
