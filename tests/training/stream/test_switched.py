"""Switched documents: every byte is read once, in turn in either view, and the plan keeps what it promises."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors.bpe_train import train_bpe
from proxybyte.training.stream.mixed_view import MixedViewDataset
from proxybyte.training.stream.placement import Form, Lengths
from proxybyte.training.stream.plan import PlanConfig, StreamPlan
from proxybyte.training.stream.plan_report import report
from proxybyte.training.stream.schedule import ScheduleConfig

WORDS = [b"def", b"return", b"import", b"self", b"None", b"(x)", b":\n", b"= 0", "λ".encode(), b"\xff\x00"]
RNG = np.random.default_rng(0)
TEXTS = [b" ".join(WORDS[i] for i in RNG.integers(0, len(WORDS), RNG.integers(1, 150))) for _ in range(60)]
BPE = train_bpe(TEXTS, 300)
CODES = [np.asarray(codes) for codes in BPE.encode_batch(TEXTS)]
SPELLED = BPE.spelled


class Split:
    """What a plan and a dataset read of a prepared split, the borders as docs/architecture.md says."""

    n_bytes = np.array([len(text) for text in TEXTS], np.uint32)
    n_symbols = np.array([len(codes) for codes in CODES], np.int32)
    borders = np.array(
        [
            [
                sum(len(SPELLED[c]) for c in codes[: len(codes) * j // 16]) if len(codes) >= 16 else 0
                for j in range(1, 16)
            ]
            for codes in CODES
        ],
        np.uint32,
    )

    def raw(self, document, begin, end):
        return np.frombuffer(TEXTS[document], np.uint8)[begin:end]

    def compressed(self, document, begin, end):
        return CODES[document][begin:end]


def dataset_of(schedule, **config):
    split = Split()
    lengths = Lengths(split.n_bytes, split.n_symbols, split.borders)
    plan = StreamPlan(lengths, PlanConfig(schedule=ScheduleConfig(**schedule), **config))
    return MixedViewDataset(split, plan)


def stream_of(dataset):
    """The symbols of all rows without what opens a cut document again."""
    reserve = dataset.plan.config.reserve
    ids = dataset.batch(range(len(dataset))).input_ids[:, reserve:].ravel()
    return ids[: dataset.plan.placements.start[-1]].tolist()


def read(stream):
    """Each document as the list of its stretches: view and bytes."""
    documents, stretches, view = [], [], None
    for symbol in stream:
        if symbol in (12, 14):
            assert view is None
            view = symbol
            stretches.append((view, b""))
        elif symbol in (13, 15):
            assert symbol == view + 1
            view = None
        elif symbol == 2:
            assert view is None
            documents.append(stretches)
            stretches = []
        else:
            assert (view == 14) == (symbol >= 320)
            more = SPELLED[symbol - 320] if view == 14 else bytes([symbol - 64])
            stretches[-1] = (view, stretches[-1][1] + more)
    assert not stretches
    return documents


@given(
    rate=st.sampled_from([0.5, 0.9, 1.0]),
    switch=st.sampled_from([0.3, 1.0]),
    switches=st.floats(0, 15),
    first=st.floats(0, 15),
    row_length=st.integers(8, 200),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_every_byte_is_read_once_and_views_alternate(rate, switch, switches, first, row_length, seed):
    schedule = {"rate": rate, "switch": switch, "switches": switches, "warmup_switches": first, "warmup": 0.4}
    dataset = dataset_of({**schedule, "warmup_pairing": "none"}, row_length=row_length, seed=seed)
    placed = dataset.plan.placements
    documents = read(stream_of(dataset))
    assert sorted(placed.document.tolist()) == list(range(len(TEXTS)))
    for number, form, stretches in zip(placed.document, placed.form, documents, strict=True):
        assert b"".join(text for _, text in stretches) == TEXTS[number]
        views = [view for view, _ in stretches]
        assert all(a != b for a, b in pairwise(views))
        assert all(text for _, text in stretches)
        assert form == Form.SWITCHED or len(views) == 1
        assert form != Form.SWITCHED or len(CODES[number]) >= 16
    long = [n for n, codes in enumerate(CODES) if len(codes) >= 16]
    assert 20 < len(long) < len(TEXTS)


def test_positions_run_through_a_switched_document():
    dataset = dataset_of({"rate": 1.0, "warmup": 0.0, "switch": 1.0, "switches": 10}, row_length=4096)
    batch = dataset.batch(range(len(dataset)))
    starts = 1 + dataset.plan.placements.start
    row = batch.position_ids[0].tolist()
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if end > 4096:
            break
        assert row[begin:end] == list(range(end - begin))
    assert begin > 1000


def test_switches_are_dense_at_first_then_as_many_as_asked_then_none():
    lengths = Lengths(np.full(30000, 1600), np.full(30000, 400), np.tile(np.arange(1, 16) * 100, (30000, 1)))
    schedule = {"rate": 1.0, "warmup": 0.3, "warmup_rate": 1.0, "warmup_pairing": "none", "switch": 1.0}
    schedule |= {"warmup_switches": 12.0, "switches": 3.0, "decay": 0.3, "decay_shape": "step"}
    plan = StreamPlan(lengths, PlanConfig(schedule=ScheduleConfig(**schedule)))
    placed = plan.placements
    views = plan.segments(np.arange(len(placed))).view
    count = (views >= 0).sum(axis=0) - 1
    middle = (placed.start[:-1] + placed.start[1:]) / 2 / placed.start[-1]
    for low, high, wanted in ((0.0, 0.02, 11.7), (0.14, 0.16, 7.5), (0.4, 0.6, 3.0), (0.75, 1.0, 0.0)):
        assert count[(middle >= low) & (middle < high)].mean() == pytest.approx(wanted, abs=0.3)
    steady = (middle > 0.35) & (middle < 0.65)
    assert (views[0, steady] == 1).mean() == pytest.approx(0.5, abs=0.02)
    assert (placed.form[middle > 0.75] == Form.RAW).all()
    # Each of the fifteen places is as likely as another.
    places = (placed.part[steady][:, None] >> np.arange(15) & 1).mean(axis=0)
    np.testing.assert_allclose(places, 0.2, atol=0.02)


def test_a_plan_is_a_pure_function_and_other_forms_stay_as_they_were():
    schedule = {"rate": 0.8, "switch": 0.5, "hand_off": 0.3, "pairing": "random"}
    one, other = (dataset_of(schedule, row_length=32, seed=3, budget=2.0) for _ in range(2))
    rows = np.arange(len(one))
    whole = one.batch(rows).input_ids
    assert all((other[row]["input_ids"] == whole[row]).all() for row in rows[::-1].tolist())
    epochs = [one.plan.placements.part[one.plan.placements.epoch == epoch].tolist() for epoch in (0, 1)]
    assert epochs[0] != epochs[1]
    assert dataset_of({**schedule, "switch": 0.0}, row_length=32).plan.placements.form.max() < Form.SWITCHED


def test_the_report_counts_each_stretch_with_its_bytes():
    dataset = dataset_of({"rate": 1.0, "warmup": 0.0, "switch": 1.0, "switches": 5}, row_length=64)
    told = report(dataset.plan)
    stretches = [stretch for document in read(stream_of(dataset)) for stretch in document]
    batch = dataset.batch(range(len(dataset)))
    for share, view in zip(told.shares, (12, 14), strict=True):
        texts = [text for shown, text in stretches if shown == view]
        assert (share.views, share.text_bytes) == (len(texts), sum(map(len, texts)))
        assert batch.text_bytes[share.view] == pytest.approx(share.text_bytes)


def test_what_cannot_switch_is_refused():
    split = Split()
    with pytest.raises(ProxyByteError, match=r"schedule\.switch needs a compressor whose symbols end"):
        StreamPlan(Lengths(split.n_bytes, split.n_symbols), PlanConfig(schedule=ScheduleConfig(switch=0.5)))
    halves = Lengths(split.n_bytes, split.n_bytes.astype(np.int64) * 2, split.borders)
    with pytest.raises(ProxyByteError, match="symbols are whole bytes"):
        StreamPlan(halves, PlanConfig(schedule=ScheduleConfig(switch=0.5)))
    with pytest.raises(ValidationError, match=r"hand_off \+ switch is 1\.2"):
        ScheduleConfig(switch=0.7, hand_off=0.5)
