"""Packed rows against a plain-Python construction of the same stream, and the invariants of packing."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from proxybyte.symbols import IGNORE_INDEX, Special, View
from proxybyte.training.stream.mixed_view import MixedViewDataset, PackedBatch, collate
from proxybyte.training.stream.placement import Form, Lengths
from proxybyte.training.stream.plan import PlanConfig, StreamPlan
from proxybyte.training.stream.schedule import Pairing, ScheduleConfig

BOS, EOS, PAD = int(Special.BOS), int(Special.EOS), int(Special.PAD)
OPEN = {View.RAW: 12, View.COMPRESSED: 14}
CLOSE = {View.RAW: 13, View.COMPRESSED: 15}


def documents(count=40, longest=400, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, rng.integers(1, longest), dtype=np.uint8).tobytes() for _ in range(count)]


def dataset_of(split, **config) -> MixedViewDataset:
    lengths = Lengths(split.n_bytes, split.n_symbols, split.borders)
    return MixedViewDataset(split, StreamPlan(lengths, PlanConfig(**config)))


def document_open(config, view):
    """The last symbol of what opens a document: <bos> stands in the place of <raw> where it opens alone."""
    return BOS if config.document_opening == "<bos>" and view is View.RAW else OPEN[view]


def spelled(dataset, placement):
    """One placement as a list of (symbol, view or None): view None for what is not content."""
    placed, split = dataset.plan.placements, dataset.split
    document, form, part = (int(column[placement]) for column in (placed.document, placed.form, placed.part))
    n_bytes, n_symbols = int(split.n_bytes[document]), int(split.n_symbols[document])
    raw = [64 + b for b in split.raw(document, 0, n_bytes).tolist()]
    codes = [320 + c for c in split.compressed(document, 0, max(n_symbols, 0)).tolist()]
    cut = n_symbols * part // 16
    border = int(split.borders[document][part - 1]) if form == Form.HAND_OFF else 0
    if form == Form.SWITCHED:
        spans = switched(split, document, part, raw, codes)
    else:
        spans = whole_or_once(form, raw, codes, cut, border)
    symbols = [(BOS, "bos", None)] if dataset.plan.config.document_opening == "<bos><raw>" else []
    for number, (view, content) in enumerate(spans):
        symbols.append((document_open(dataset.plan.config, view) if number == 0 else OPEN[view], "open", view))
        symbols += [(symbol, "content", view) for symbol in content]
        symbols.append((CLOSE[view], "close", view))
    return [*symbols, (EOS, "eos", None)]


def switched(split, document, part, raw, codes):
    """Sixteenths one after the other, joined where the mask has no switch between them."""
    ends = [0, *split.borders[document].tolist(), len(raw)]
    view = View.COMPRESSED if part >> 15 else View.RAW
    spans = []
    for number in range(16):
        if number and part >> (number - 1) & 1:
            view = View.RAW if view is View.COMPRESSED else View.COMPRESSED
        if number == 0 or part >> (number - 1) & 1:
            spans.append((view, []))
        of_codes = slice(len(codes) * number // 16, len(codes) * (number + 1) // 16)
        spans[-1][1].extend(raw[ends[number] : ends[number + 1]] if view is View.RAW else codes[of_codes])
    return spans


def whole_or_once(form, raw, codes, cut, border):
    return {
        Form.RAW: [(View.RAW, raw)],
        Form.PARALLEL_RAW: [(View.RAW, raw)],
        Form.COMPRESSED: [(View.COMPRESSED, codes)],
        Form.PARALLEL_COMPRESSED: [(View.COMPRESSED, codes)],
        Form.RAW_THEN_COMPRESSED: [(View.RAW, raw), (View.COMPRESSED, codes)],
        Form.COMPRESSED_THEN_RAW: [(View.COMPRESSED, codes), (View.RAW, raw)],
        Form.HAND_OFF: [(View.COMPRESSED, codes[:cut]), (View.RAW, raw[border:])],
    }[form]


def reference_rows(dataset):
    """Every row, built symbol by symbol: lists of (input_ids, position_ids, labels)."""
    config = dataset.plan.config
    stream = [
        (placement, *symbol)
        for placement in range(len(dataset.plan.placements))
        for symbol in spelled(dataset, placement)
    ]
    rows = []
    for row in range(dataset.plan.num_rows):
        ids, positions, labels = [], [], []
        content = stream[row * config.row_capacity : (row + 1) * config.row_capacity]
        first = content[0]
        opens_document = row * config.row_capacity == 0 or stream[row * config.row_capacity - 1][0] != first[0]
        reopened = first[2] in ("content", "close")
        if opens_document or first[2] == "eos":
            head = [PAD] * config.reserve
        elif reopened:
            head = [BOS, document_open(config, first[3])][-config.reserve :]
        else:
            head = [PAD, BOS][-config.reserve :] if config.document_opening == "<bos><raw>" else [PAD]
        previous = None
        for number, symbol in enumerate(head):
            ids.append(symbol)
            starts = number == 0 or (symbol != PAD and ids[number - 1] == PAD)
            positions.append(0 if starts else positions[-1] + 1)
            labels.append(IGNORE_INDEX if starts or symbol == PAD else symbol)
            previous = None if symbol == PAD else first[0]
        for number, (placement, symbol, kind, _) in enumerate(content):
            starts = placement != previous
            positions.append(0 if starts else positions[-1] + 1)
            hidden = starts or (number == 0 and reopened and kind == "close")
            ids.append(symbol)
            labels.append(IGNORE_INDEX if hidden else symbol)
            previous = placement
        pad = config.row_length - len(ids)
        if pad:
            positions += list(range(positions[-1] + 1, positions[-1] + 1 + pad))
        rows.append((ids + [PAD] * pad, positions, labels + [IGNORE_INDEX] * pad))
    return rows


SCHEDULES = [
    {"rate": 0.0, "warmup": 0.0},
    {"rate": 1.0, "warmup": 0.0},
    {"rate": 0.9},
    {"rate": 0.6, "pairing": Pairing.RANDOM},
    {"rate": 0.6, "pairing": Pairing.PARALLEL},
    {"rate": 0.8, "hand_off": 0.7, "pairing": Pairing.COMPRESSED_FIRST},
    {"rate": 0.9, "switch": 0.7, "hand_off": 0.2, "warmup_switches": 15, "switches": 2},
    {"rate": 1.0, "warmup": 0.0, "switch": 1.0, "switches": 7},
]


@pytest.mark.parametrize("opening", ["<raw>", "<bos><raw>", "<bos>"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_rows_equal_the_stream_built_symbol_by_symbol(prepared_split, schedule, opening):
    dataset = dataset_of(
        prepared_split(documents(), raw_only=(3, 7)),
        row_length=64,
        budget=2.0,
        document_opening=opening,
        schedule=ScheduleConfig(**schedule),
    )
    batch = dataset.batch(range(len(dataset)))
    for row, (ids, positions, labels) in enumerate(reference_rows(dataset)):
        assert batch.input_ids[row].tolist() == ids, row
        assert batch.position_ids[row].tolist() == positions, row
        assert batch.labels[row].tolist() == labels, row


@given(
    sizes=st.lists(st.integers(1, 130), min_size=1, max_size=12),
    row_length=st.integers(8, 40),
    opening=st.sampled_from(["<raw>", "<bos><raw>", "<bos>"]),
    schedule=st.sampled_from(SCHEDULES),
    seed=st.integers(0, 5),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_equal_the_stream_for_any_lengths(tmp_path_factory, sizes, row_length, opening, schedule, seed):
    split = InMemorySplit([bytes(range(size)) for size in sizes])
    config = {"row_length": row_length, "document_opening": opening, "seed": seed, "budget": 1.5}
    dataset = dataset_of(split, schedule=ScheduleConfig(**schedule), **config)
    batch = dataset.batch(range(len(dataset)))
    expected = reference_rows(dataset)
    assert batch.input_ids.tolist() == [row[0] for row in expected]
    assert batch.position_ids.tolist() == [row[1] for row in expected]
    assert batch.labels.tolist() == [row[2] for row in expected]


class InMemorySplit:
    """The same three columns without a file, so that Hypothesis can try many."""

    def __init__(self, texts):
        self.texts = [np.frombuffer(text, np.uint8) for text in texts]
        self.n_bytes = np.array([len(text) for text in texts], np.uint32)
        self.n_symbols = ((self.n_bytes + 1) // 2).astype(np.int32)
        part = np.arange(1, 16)
        self.borders = np.minimum(self.n_symbols[:, None] * part // 16 * 2, self.n_bytes[:, None]).astype(np.uint32)

    def raw(self, document, begin, end):
        return self.texts[document][begin:end]

    def compressed(self, document, begin, end):
        return self.texts[document][::2][begin:end]


@pytest.mark.parametrize("row_length", [16, 61])
def test_no_byte_is_lost_at_a_row_border(prepared_split, row_length):
    texts = documents()
    dataset = dataset_of(
        prepared_split(texts), row_length=row_length, schedule=ScheduleConfig(rate=0.0, warmup=0.0), budget=1.0
    )
    stream = np.concatenate([dataset[row]["input_ids"][1:] for row in range(len(dataset))])
    found = bytes((stream[(stream >= 64) & (stream < 320)] - 64).astype(np.uint8))
    assert found == b"".join(texts[i] for i in dataset.plan.placements.document)


def test_every_stretch_opens_with_a_sentinel(prepared_split):
    dataset = dataset_of(prepared_split(documents()), row_length=32, schedule=ScheduleConfig(rate=0.5))
    batch = dataset.batch(range(len(dataset)))
    opening = batch.input_ids[batch.position_ids == 0]
    assert set(opening.tolist()) <= {12, 14, PAD, EOS}
    after_pad = (batch.input_ids[:, 0] == PAD) & (batch.position_ids[:, 1] == 0)
    assert (batch.input_ids[:, 0] != PAD).sum() + after_pad.sum() == len(dataset)


def test_no_target_crosses_documents(prepared_split):
    """A target is predicted from a symbol of its own document: wherever a position is 0 there is no target."""
    for schedule in SCHEDULES:
        dataset = dataset_of(prepared_split(documents(10)), row_length=32, schedule=ScheduleConfig(**schedule))
        batch = dataset.batch(range(len(dataset)))
        assert (batch.labels[batch.position_ids == 0] == IGNORE_INDEX).all()
        targets = batch.labels != IGNORE_INDEX
        assert (batch.labels[targets] == batch.input_ids[targets]).all()
        assert not (targets & (batch.input_ids == PAD)).any()


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_the_same_rows_for_any_number_of_processes(prepared_split, processes):
    dataset = dataset_of(prepared_split(documents()), row_length=32)
    whole = dataset.batch(range(16)).input_ids
    shares = [dataset.batch(range(rank, 16, processes)).input_ids for rank in range(processes)]
    together = np.empty_like(whole)
    for rank, share in enumerate(shares):
        together[rank::processes] = share
    np.testing.assert_array_equal(together, whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_rows_through_a_loader_with_workers(prepared_split, workers):
    dataset = dataset_of(prepared_split(documents()), row_length=32)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=collate)
    rows = torch.cat([batch.input_ids for batch in loader])
    np.testing.assert_array_equal(rows.numpy(), dataset.batch(range(len(dataset))).input_ids)


@pytest.mark.parametrize("start", [0, 1, 17, 30])
def test_resuming_at_any_row_gives_the_rest(prepared_split, tmp_path, start):
    split = prepared_split(documents())
    uninterrupted = dataset_of(split, row_length=32, budget=3.0).batch(range(start, start + 8))
    resumed = dataset_of(split, row_length=32, budget=3.0).batch(range(start, start + 8))
    np.testing.assert_array_equal(resumed.input_ids, uninterrupted.input_ids)
    one_by_one = np.stack([dataset_of(split, row_length=32, budget=3.0)[start + i]["input_ids"] for i in range(8)])
    np.testing.assert_array_equal(one_by_one, uninterrupted.input_ids)


def test_text_bytes_add_up_to_the_corpus(prepared_split):
    texts = documents()
    total = sum(len(text) for text in texts)
    for schedule in ({"rate": 0.0}, {"rate": 1.0}, {"rate": 0.8, "hand_off": 0.9}, {"rate": 0.9, "switch": 0.8}):
        dataset = dataset_of(prepared_split(texts), row_length=32, schedule=ScheduleConfig(warmup=0.0, **schedule))
        text_bytes = dataset.batch(range(len(dataset))).text_bytes
        assert sum(text_bytes.values()) == pytest.approx(total)


def test_a_row_outside_the_plan_is_refused(prepared_split):
    dataset = dataset_of(prepared_split(documents()), row_length=32)
    with pytest.raises(IndexError, match=f"row {len(dataset)} is not in"):
        dataset[len(dataset)]


def test_single_rows_and_batches_collate_alike(prepared_split):
    dataset = dataset_of(prepared_split(documents()), row_length=32)
    one, many = collate([dataset[2], dataset[5]]), collate(dataset.batch([2, 5]))
    assert isinstance(one, PackedBatch)
    for name in ("input_ids", "position_ids", "labels"):
        assert torch.equal(getattr(one, name), getattr(many, name))
    assert many.num_targets == int((many.labels[:, 1:] != IGNORE_INDEX).sum())
