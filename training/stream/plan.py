"""The stream of a whole run as a pure function: (lengths, schedule, budget, seed) -> what fills row ``i``.

Nothing is iterated and nothing has state: resuming is one integer, any number of processes sees the same rows, and a
test can look at row 10 million. Everything is laid out with NumPy before the run starts.

The stream is the documents in a fresh random order each epoch, each in the form that the schedule asks for at that
point of progress. A *placement* is one document in one form. Row ``i`` holds ``row_length - reserve`` symbols of the
stream from ``i * (row_length - reserve)`` on; the first ``reserve`` slots are kept for the sentinel with which a
document that was cut at the border opens again, so the arithmetic stays one cumulative sum.

Phases of the schedule are shares of optimizer steps, that is of the rows. A budget in symbols says how many rows there
are; in documents or bytes that depends on the forms, which depend on where the phases begin. So such a run is laid out
a few times, until it is as long as the phases assumed.
"""

from enum import StrEnum
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from proxybyte.errors import ProxyByteError
from proxybyte.symbols import DocumentOpening

from ..machine import host_memory, refuse_beyond
from ..settings import Section
from .placement import HAND_OFF_PARTS, STARTS_COMPRESSED, Form, Lengths, Offsets, Placements, Segments, segments
from .schedule import Mixture, Pairing, Phase, Phases, ScheduleConfig

GOLDEN = 0.6180339887498949
PROGRESS_GRAIN = 256
"""The mixture is held constant over blocks of documents of about this fraction of the run."""
_MOST_ROUNDS = 16
_ROUNDING = 4096
"""Phases begin within this fraction of the run of where they should: exactly in runs of fewer steps."""
_BYTES_A_PLACEMENT = 48
"""Memory while a plan is laid out: the columns, their pieces and what is computed on the way."""


class BudgetUnit(StrEnum):
    """In what the length of a run is counted."""

    SYMBOLS = "symbols"
    """Symbols of the packed rows: runs of equal budget cost equal FLOPs."""
    TEXT_BYTES = "text_bytes"
    """Bytes of source text (a pair counts once): runs of equal budget see equal data."""
    EPOCHS = "epochs"
    """Passes over the documents."""


class PlanConfig(Section):
    """Everything that a plan depends on beside the documents' lengths."""

    seed: int = Field(0, ge=0, description="order of the documents, their views, the shuffle")
    row_length: int = Field(2048, ge=8, le=2**24, description="symbols in a row")
    budget: float = Field(1.0, gt=0, lt=2**63, description="length of the run, in budget_unit")
    budget_unit: BudgetUnit = Field(BudgetUnit.EPOCHS, description="what budget counts")
    document_opening: DocumentOpening = Field(DocumentOpening.RAW, description="how a document opens")
    document_masking: bool = Field(True, description="documents of a row do not see each other")
    superposed: int = Field(
        0,
        ge=0,
        le=64,
        description="compressed views are bags of so many bytes, which no compressor makes; 0: its symbols",
    )
    view_sentinels: bool = Field(
        True, description="compressed views wear sentinels of their own; else those of raw ones, and nothing tells them"
    )
    schedule: ScheduleConfig = ScheduleConfig()

    @property
    def reserve(self) -> int:
        """Slots at the start of each row that are kept for opening a cut document again."""
        return len(self.document_opening.symbols())

    @property
    def row_capacity(self) -> int:
        """Symbols of the stream in each row."""
        return self.row_length - self.reserve

    @model_validator(mode="before")
    @classmethod
    def _earlier_name(cls, values: Any) -> Any:
        """Recipes and runs of earlier versions say ``document_prefix``: true is ``<bos><raw>``, false ``<raw>``."""
        if isinstance(values, dict) and isinstance(values.get("document_prefix"), bool):
            opening = DocumentOpening.BOS_RAW if values["document_prefix"] else DocumentOpening.RAW
            values = {"document_opening": opening} | {k: v for k, v in values.items() if k != "document_prefix"}
        return values

    @model_validator(mode="after")
    def _holds_a_row(self) -> Self:
        if self.superposed == 1:
            raise ValueError("superposed is 1: a bag holds at least 2 bytes (0 for none)")
        if self.budget_unit is BudgetUnit.SYMBOLS and self.budget < self.row_length:
            raise ValueError(f"a budget of {self.budget:g} symbols is less than one row of {self.row_length}")
        return self


class StreamPlan:
    """What fills each row of a run.

    Attributes:
        config: the plan's configuration.
        lengths: the documents' lengths.
        placements: the stream.
        num_rows: rows in the run; those beyond the last whole step are in no step.
        rows_per_step: rows of one optimizer step.
        phases: at which step each phase of the schedule begins.
        begins: the first placement of each phase that has any, in order.
    """

    def __init__(self, lengths: Lengths, config: PlanConfig, rows_per_step: int = 1):
        """Lay out the whole run.

        Raises:
            ProxyByteError: if there is no document, the schedule needs hand-offs and the compressor has no borders, or
                the plan is larger than this machine's memory.
        """
        if len(lengths) == 0:
            raise ProxyByteError("the split holds no document: nothing can be planned")
        _check_borders(lengths, config.schedule)
        refuse_beyond(
            host_memory(),
            _expected_documents(lengths, config) * _BYTES_A_PLACEMENT,
            f"the plan of plan.budget={config.budget:g} {config.budget_unit}",
            "lower plan.budget",
        )
        self.config = config
        self.lengths = lengths
        self.rows_per_step = rows_per_step
        layout = _settle(lengths, config, rows_per_step)
        self.placements, self.begins = layout.placements(), layout.begins
        self.num_rows = layout.rows
        assumed, steps = layout.phases, self.steps
        self.phases = Phases(
            steps, min(assumed.steady, steps), min(assumed.decay, steps) if config.schedule.decay else steps
        )

    @property
    def steps(self) -> int:
        """Whole optimizer steps."""
        return self.num_rows // self.rows_per_step

    def segments(self, index: np.ndarray) -> Segments:
        """The spans of placements ``index`` (any integer array of shape ``(n,)``)."""
        chosen = self.placements
        return segments(self.lengths, chosen.document[index], chosen.form[index], chosen.part[index])


def _check_borders(lengths: Lengths, schedule: ScheduleConfig) -> None:
    """Refuse documents that are to change their view where no symbol ends.

    Raises:
        ProxyByteError: naming the key.
    """
    wanted = [key for key in ("hand_off", "switch") if getattr(schedule, key) > 0]
    if wanted and lengths.borders is None:
        raise ProxyByteError(f"schedule.{wanted[0]} needs a compressor whose symbols end at byte borders")
    coded = lengths.n_symbols >= 0
    if schedule.switch > 0 and lengths.n_symbols[coded].sum() > 1.5 * lengths.n_bytes[coded].sum():
        raise ProxyByteError("schedule.switch needs a compressor whose symbols are whole bytes, and these are less")


def _random_bits(count: int, *key: int) -> np.ndarray:
    """``count`` uint64 from a bit generator; unlike ``Generator`` methods its stream never changes between versions."""
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(count)


def epoch_order(documents: int, seed: int, epoch: int) -> np.ndarray:
    """The random order of documents in ``epoch``: a permutation of shape ``(documents,)``."""
    return np.argsort(_random_bits(documents, seed, epoch, 0), kind="stable").astype(np.int32)


def choose_forms(mixture: Mixture, draws: np.ndarray) -> np.ndarray:
    """Form of each document by its draw in ``[0, 1)``: intervals as long as each form's share.

    Parallel pairs come back as ``PARALLEL_RAW``; the caller adds the twin.
    """
    alone, pair = mixture.compressed_alone_share, mixture.pair_share
    first = {Pairing.RAW_FIRST: 1.0, Pairing.COMPRESSED_FIRST: 0.0}.get(mixture.pairing, 0.5)
    if mixture.pairing is Pairing.PARALLEL:
        pair_forms = (Form.PARALLEL_RAW, Form.PARALLEL_RAW)
    else:
        pair_forms = (Form.RAW_THEN_COMPRESSED, Form.COMPRESSED_THEN_RAW)
    whole = max(0.0, 1 - mixture.hand_off - mixture.switch)
    shares = [alone * mixture.hand_off, alone * mixture.switch, alone * whole, pair * first, pair * (1 - first)]
    edges = np.cumsum(shares)
    forms = np.array([Form.HAND_OFF, Form.SWITCHED, Form.COMPRESSED, *pair_forms, Form.RAW], np.uint8)
    # A rounding error in the sum must not make a raw document where none was asked for.
    edges[-1] = 1.0 if edges[-1] > 1.0 - 1e-12 else edges[-1]
    return forms[np.searchsorted(edges, draws, side="right")]


def choose_switches(mean: float, draws: np.ndarray) -> np.ndarray:
    """``part`` of switched documents by 16 random bytes each, shape ``(n, 16)``: where they switch, and the first view.

    Each of the 15 places is one with the same chance, a multiple of 1/256.
    """
    chance = round(256 * mean / (HAND_OFF_PARTS - 1))
    switches = (draws[:, :-1] < chance).astype(np.int64) << np.arange(HAND_OFF_PARTS - 1)
    return (switches.sum(axis=1) + STARTS_COMPRESSED * (draws[:, -1] % 2).astype(np.int64)).astype(np.uint16)


def _fit_parts(
    form: np.ndarray, n_symbols: np.ndarray, parts: np.ndarray, switches: float
) -> tuple[np.ndarray, np.ndarray]:
    """Forms that the documents can have, and their ``part``.

    A document of so few symbols that a sixteenth of it is empty stays in its first view as a whole.

    Args:
        form: as chosen, shape ``(n,)``.
        n_symbols: of the documents, of the same shape.
        parts: the sixteenth at which each turns raw as a hand-off, then, where any may switch, 16 random bytes.
        switches: how often a document switches, on average.
    """
    short, hand_off, switched = n_symbols < HAND_OFF_PARTS, form == Form.HAND_OFF, form == Form.SWITCHED
    part = np.where(hand_off & ~short, parts[:, 0], 0).astype(np.uint16)
    form = np.where(hand_off & short, np.uint8(Form.COMPRESSED), form)
    if switched.any():
        masks = choose_switches(switches, parts[:, 1:])
        first = np.where(masks >= STARTS_COMPRESSED, Form.COMPRESSED, Form.RAW).astype(np.uint8)
        form = np.where(switched & short, first, form)
        part = np.where(switched & ~short, masks, part)
    return np.where(n_symbols < 0, np.uint8(Form.RAW), form), np.where(n_symbols < 0, np.uint16(0), part)


class _Layout:
    """Builds the stream block by block; a block's mixture is that at its start, and no block spans two phases.

    The budget and what each document takes of it are whole numbers: stream symbols, bytes of text, or documents.

    Attributes:
        phases: where they are to begin.
        begins: the first placement of each phase.
        length: symbols of the stream so far.
    """

    def __init__(self, lengths: Lengths, config: PlanConfig, phases: Phases, rows_per_step: int):
        self.lengths = lengths
        self.config = config
        self.phases = phases
        self.step_length = rows_per_step * config.row_capacity
        self.columns: list[tuple[np.ndarray, ...]] = []
        self.begins: dict[Phase, int] = {}
        self.spent = self.length = self.count = 0
        self.budget = _whole_budget(lengths, config)
        self.block = max(1, int(_expected_documents(lengths, config)) // PROGRESS_GRAIN)

    @property
    def full(self) -> bool:
        """Whether the budget is spent."""
        return self.spent >= self.budget

    @property
    def rows(self) -> int:
        """Rows of the run; of a budget in symbols, the last document ends beyond the last one."""
        stream = self.budget if self.config.budget_unit is BudgetUnit.SYMBOLS else self.length
        return -(-stream // self.config.row_capacity)

    def fill(self) -> None:
        """Place documents until the budget is spent."""
        documents, seed, epoch = len(self.lengths), self.config.seed, 0
        while not self.full:
            order = epoch_order(documents, seed, epoch)
            offset = float(_random_bits(1, seed, epoch, 1)[0] >> np.uint64(11)) * 2.0**-53
            switching = self.config.schedule.switch > 0
            parts = np.zeros((documents, 1 + HAND_OFF_PARTS * switching), np.uint8)
            if self.config.schedule.hand_off > 0:
                drawn = _random_bits(documents, seed, epoch, 2) % np.uint64(HAND_OFF_PARTS - 1)
                parts[:, 0] = drawn + 1
            if switching:
                drawn = _random_bits(2 * documents, seed, epoch, 3).astype("<u8")
                parts[:, 1:] = drawn.view(np.uint8).reshape(documents, HAND_OFF_PARTS)
            begin = 0
            while begin < documents and not self.full:
                chosen = slice(begin, min(begin + self.block, documents))
                # A low-discrepancy sequence over documents in random order: each share is met to within a few
                # documents, where coin flips would miss it by the square root of their number.
                draws = np.modf(offset + GOLDEN * np.arange(chosen.start, chosen.stop))[0]
                begin += self.add_block(order[chosen], draws, parts[chosen], epoch)
            epoch += 1

    def placements(self) -> Placements:
        """The stream."""
        document, form, part, epochs, length = (np.concatenate(column) for column in zip(*self.columns, strict=True))
        start = np.zeros(len(length) + 1, np.int64)
        np.cumsum(length, out=start[1:])
        return Placements(document, form, part, epochs, start)

    def add_block(self, document: np.ndarray, draws: np.ndarray, parts: np.ndarray, epoch: int) -> int:
        """Place the documents of one block, as many as the budget and the phase allow; returns how many."""
        phase, end, mixture = self._here()
        form = choose_forms(mixture, draws)
        n_symbols = self.lengths.n_symbols[document]
        # A document of so few symbols that a sixteenth of it is empty stays compressed as a whole.
        form, part = _fit_parts(form, n_symbols, parts, mixture.switches)
        copies = 1 + (form == Form.PARALLEL_RAW)
        document, form, part = (np.repeat(column, copies) for column in (document, form, part))
        form[np.cumsum(copies)[copies == 2] - 1] = Form.PARALLEL_COMPRESSED
        length = Offsets.of(segments(self.lengths, document, form, part), self.config.reserve).length
        cost = self._cost(document, form, length).astype(np.int64)
        keep = _before(self.budget - self.spent, cost)
        if end is not None:
            keep = min(keep, _before(end - self.length, length))
        if 0 < keep < len(form) and form[keep] == Form.PARALLEL_COMPRESSED:
            keep += 1
        self.begins.setdefault(phase, self.count)
        self.columns.append((document[:keep], form[:keep], part[:keep], np.full(keep, epoch, np.uint32), length[:keep]))
        self.spent += int(cost[:keep].sum())
        self.length += int(length[:keep].sum())
        self.count += keep
        return int((form[:keep] != Form.PARALLEL_COMPRESSED).sum())

    def _here(self) -> tuple[Phase, int | None, Mixture]:
        """The phase that the stream has come to, where in the stream it ends (the last: nowhere), and the mixture."""
        phase = self.phases.at(min(self.length // self.step_length, self.phases.steps - 1))
        first, last = self.phases.span(phase)
        done = (self.length / self.step_length - first) / (last - first)
        end = last * self.step_length if last < self.phases.steps else None
        return phase, end, self.config.schedule.mixture(phase, done)

    def _cost(self, document: np.ndarray, form: np.ndarray, length: np.ndarray) -> np.ndarray:
        """What each placement takes of the budget; the text of a parallel pair counts once."""
        if self.config.budget_unit is BudgetUnit.SYMBOLS:
            return length
        once = form != Form.PARALLEL_COMPRESSED
        return once * self.lengths.n_bytes[document] if self.config.budget_unit is BudgetUnit.TEXT_BYTES else once


def _before(limit: int, sizes: np.ndarray) -> int:
    """How many of what stands side by side begin before ``limit``."""
    return int(np.searchsorted(np.cumsum(sizes) - sizes, limit, "left"))


def _whole_budget(lengths: Lengths, config: PlanConfig) -> int:
    """The budget as a whole number of what the layout counts: stream symbols, bytes of text, or documents."""
    match config.budget_unit:
        case BudgetUnit.SYMBOLS:
            return int(config.budget) // config.row_length * config.row_capacity
        case BudgetUnit.TEXT_BYTES:
            return int(config.budget)
        case BudgetUnit.EPOCHS:
            return max(1, round(config.budget * len(lengths)))


def _mean_length(lengths: Lengths, config: PlanConfig) -> float:
    """Symbols that a document takes in the stream, about: the mean over the run, whose parts are shares of symbols."""
    raw = float(lengths.n_bytes.mean(dtype=np.float64)) + 3
    coded = float(np.where(lengths.n_symbols < 0, lengths.n_bytes, lengths.n_symbols).mean(dtype=np.float64)) + 3
    mixtures = [config.schedule.at((part + 0.5) / PROGRESS_GRAIN) for part in range(PROGRESS_GRAIN)]
    takes = [(1 - m.compressed_alone_share) * raw + (m.compressed_alone_share + m.pair_share) * coded for m in mixtures]
    # Of a switched document about half is raw, and each switch takes two sentinels.
    takes = [
        taken + m.compressed_alone_share * m.switch * ((raw - coded) / 2 + 2 * m.switches)
        for taken, m in zip(takes, mixtures, strict=True)
    ]
    return 1 / float(np.mean(1 / np.array(takes)))


def _expected_documents(lengths: Lengths, config: PlanConfig) -> float:
    """Documents that the budget places, about."""
    budget = _whole_budget(lengths, config)
    match config.budget_unit:
        case BudgetUnit.SYMBOLS:
            return budget / _mean_length(lengths, config)
        case BudgetUnit.TEXT_BYTES:
            return budget / float(lengths.n_bytes.mean(dtype=np.float64))
        case BudgetUnit.EPOCHS:
            return float(budget)


def _settle(lengths: Lengths, config: PlanConfig, rows_per_step: int) -> _Layout:
    """The stream whose phases begin where those of a run of its length do.

    The longer the run is assumed to be, the later its phases begin, and the less is left of a budget in documents or
    bytes for what follows: assumed and true length cross once, between two guesses that stand on either side.
    """
    schedule = config.schedule

    def lay_out(steps: int) -> _Layout:
        layout = _Layout(lengths, config, Phases.of(steps, schedule.warmup, schedule.decay), rows_per_step)
        layout.fill()
        return layout

    step_length = rows_per_step * config.row_capacity
    if config.budget_unit is BudgetUnit.SYMBOLS:
        return lay_out(max(1, _whole_budget(lengths, config) // step_length))
    steps = max(1, int(_expected_documents(lengths, config) * _mean_length(lengths, config) / step_length))
    low: int = 0
    high: int | None = None
    tried: list[tuple[int, int]] = []
    best: _Layout | None = None
    least = 0
    for _ in range(_MOST_ROUNDS):
        layout = lay_out(steps)
        found = max(1, layout.rows // rows_per_step)
        right = Phases.of(found, schedule.warmup, schedule.decay)
        off = abs(right.steady - layout.phases.steady)
        if schedule.decay:
            off = max(off, abs(right.decay - layout.phases.decay))
        if best is None or off < least:
            best, least = layout, off
        low, high = (steps, high) if found > steps else (low, steps)
        if off * _ROUNDING <= found or high == low + 1:
            break
        tried.append((steps, found - steps))
        steps = min(max(_crossing(tried[-2:]), low + 1), high - 1 if high else 2**62)
    assert best is not None
    return best


def _crossing(tried: list[tuple[int, int]]) -> int:
    """Where the line through two guesses (steps, by how many the run came out longer) meets zero."""
    steps, longer = tried[-1]
    before, was = tried[0]
    if longer == was:
        return steps + longer
    return round(steps - longer * (steps - before) / (longer - was))
