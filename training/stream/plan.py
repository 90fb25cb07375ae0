"""The stream of a whole run as a pure function: (lengths, schedule, budget, seed) -> what fills row ``i``.

Nothing is iterated and nothing has state: resuming is one integer, any number of processes sees the same rows, and a
test can look at row 10 million. Everything is laid out with NumPy before the run starts.

The stream is the documents in a fresh random order each epoch, each in the form that the schedule asks for at that
point of progress. A *placement* is one document in one form. Row ``i`` holds ``row_length - reserve`` symbols of the
stream from ``i * (row_length - reserve)`` on; the first ``reserve`` slots are kept for the sentinel with which a
document that was cut at the border opens again, so the arithmetic stays one cumulative sum.
"""

from enum import StrEnum
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from proxybyte.errors import ProxyByteError
from proxybyte.symbols import DocumentOpening

from ..settings import Section
from .placement import HAND_OFF_PARTS, Form, Lengths, Placements, Segments, segments, stream_lengths
from .schedule import Mixture, Pairing, ScheduleConfig

GOLDEN = 0.6180339887498949
PROGRESS_GRAIN = 256
"""The mixture is held constant over blocks of documents of about this fraction of the run."""


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

    seed: int = Field(0, ge=0)
    row_length: int = Field(2048, ge=8, description="symbols in a row")
    budget: float = Field(1.0, gt=0, description="length of the run, in budget_unit")
    budget_unit: BudgetUnit = BudgetUnit.EPOCHS
    document_opening: DocumentOpening = Field(DocumentOpening.RAW, description="how a document opens")
    document_masking: bool = Field(True, description="documents of a row do not see each other")
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
        if self.budget_unit is BudgetUnit.SYMBOLS and self.budget < self.row_length:
            raise ValueError(f"a budget of {self.budget:g} symbols is less than one row of {self.row_length}")
        return self


class StreamPlan:
    """What fills each row of a run.

    Attributes:
        config: the plan's configuration.
        lengths: the documents' lengths.
        placements: the stream.
        num_rows: rows in the run.
    """

    def __init__(self, lengths: Lengths, config: PlanConfig):
        """Lay out the whole run.

        Raises:
            ProxyByteError: if there is no document, or the schedule needs hand-offs and the compressor has no borders.
        """
        if len(lengths) == 0:
            raise ProxyByteError("the split holds no document: nothing can be planned")
        if config.schedule.hand_off > 0 and lengths.borders is None:
            raise ProxyByteError("schedule.hand_off needs a compressor whose symbols end at byte borders")
        self.config = config
        self.lengths = lengths
        self.placements = _place(lengths, config)
        stream = int(self.placements.start[-1])
        if config.budget_unit is BudgetUnit.SYMBOLS:
            # The last document ends beyond the last whole row.
            stream = int(config.budget) // config.row_length * config.row_capacity
        self.num_rows = -(-stream // config.row_capacity)

    def segments(self, index: np.ndarray) -> Segments:
        """The spans of placements ``index`` (any integer array of shape ``(n,)``)."""
        chosen = self.placements
        return segments(self.lengths, chosen.document[index], chosen.form[index], chosen.part[index])

    def window(self, row: int) -> tuple[int, int]:
        """First and last-plus-one placement that row ``row`` shows something of."""
        start = self.placements.start
        begin = row * self.config.row_capacity
        end = min(begin + self.config.row_capacity, int(start[-1]))
        return int(np.searchsorted(start, begin, "right")) - 1, int(np.searchsorted(start, end, "left"))


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
    edges = np.cumsum([alone * mixture.hand_off, alone * (1 - mixture.hand_off), pair * first, pair * (1 - first)])
    forms = np.array([Form.HAND_OFF, Form.COMPRESSED, *pair_forms, Form.RAW], np.uint8)
    # A rounding error in the sum must not make a raw document where none was asked for.
    edges[-1] = 1.0 if edges[-1] > 1.0 - 1e-12 else edges[-1]
    return forms[np.searchsorted(edges, draws, side="right")]


class _Layout:
    """Builds the stream block by block; a block's mixture is that at its start.

    The budget and what each document takes of it are whole numbers: stream symbols, bytes of text, or documents.
    """

    def __init__(self, lengths: Lengths, config: PlanConfig):
        self.lengths = lengths
        self.config = config
        self.columns: list[tuple[np.ndarray, ...]] = []
        self.spent = 0
        mean_bytes = float(lengths.n_bytes.mean(dtype=np.float64))
        match config.budget_unit:
            case BudgetUnit.SYMBOLS:
                self.budget, mean_cost = int(config.budget) // config.row_length * config.row_capacity, mean_bytes
            case BudgetUnit.TEXT_BYTES:
                self.budget, mean_cost = int(config.budget), mean_bytes
            case BudgetUnit.EPOCHS:
                self.budget, mean_cost = max(1, round(config.budget * len(lengths))), 1.0
        self.block = max(1, int(self.budget / PROGRESS_GRAIN / mean_cost))

    @property
    def full(self) -> bool:
        """Whether the budget is spent."""
        return self.spent >= self.budget

    def cost(self, document: np.ndarray, form: np.ndarray, length: np.ndarray) -> np.ndarray:
        """What each placement takes of the budget; the text of a parallel pair counts once."""
        if self.config.budget_unit is BudgetUnit.SYMBOLS:
            return length
        once = form != Form.PARALLEL_COMPRESSED
        return once * self.lengths.n_bytes[document] if self.config.budget_unit is BudgetUnit.TEXT_BYTES else once

    def add_block(self, document: np.ndarray, draws: np.ndarray, parts: np.ndarray, epoch: int) -> None:
        """Place the documents of one block, as many as the budget allows."""
        form = self.forms(document, draws)
        part = np.where(form == Form.HAND_OFF, parts, 0).astype(np.uint8)
        copies = 1 + (form == Form.PARALLEL_RAW)
        document, form, part = (np.repeat(column, copies) for column in (document, form, part))
        form[np.cumsum(copies)[copies == 2] - 1] = Form.PARALLEL_COMPRESSED
        length = stream_lengths(segments(self.lengths, document, form, part), self.config.reserve)
        cost = self.cost(document, form, length).astype(np.int64)
        before = self.spent + np.cumsum(cost) - cost
        keep = int(np.searchsorted(before, self.budget, "left"))
        if 0 < keep < len(form) and form[keep] == Form.PARALLEL_COMPRESSED:
            keep += 1
        self.columns.append((document[:keep], form[:keep], part[:keep], np.full(keep, epoch, np.uint16), length[:keep]))
        self.spent += int(cost[:keep].sum())

    def forms(self, document: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Form of each document at this point of progress."""
        mixture = self.config.schedule.at(min(self.spent / self.budget, 1.0))
        form = choose_forms(mixture, draws)
        n_symbols = self.lengths.n_symbols[document]
        # A document of so few symbols that a sixteenth of it is empty stays compressed as a whole.
        form[(form == Form.HAND_OFF) & (n_symbols < HAND_OFF_PARTS)] = Form.COMPRESSED
        form[n_symbols < 0] = Form.RAW
        return form


def _place(lengths: Lengths, config: PlanConfig) -> Placements:
    layout = _Layout(lengths, config)
    documents, epoch = len(lengths), 0
    while not layout.full:
        order = epoch_order(documents, config.seed, epoch)
        offset = float(_random_bits(1, config.seed, epoch, 1)[0] >> np.uint64(11)) * 2.0**-53
        parts = np.zeros(documents, np.uint8)
        if config.schedule.hand_off > 0:
            parts = (_random_bits(documents, config.seed, epoch, 2) % np.uint64(HAND_OFF_PARTS - 1) + 1).astype(
                np.uint8
            )
        for begin in range(0, documents, layout.block):
            if layout.full:
                break
            chosen = slice(begin, min(begin + layout.block, documents))
            # A low-discrepancy sequence over documents in random order: each share is met to within a few documents,
            # where coin flips would miss it by the square root of their number.
            draws = np.modf(offset + GOLDEN * np.arange(chosen.start, chosen.stop))[0]
            layout.add_block(order[chosen], draws, parts[chosen], epoch)
        epoch += 1
    document, form, part, epochs, length = (np.concatenate(column) for column in zip(*layout.columns, strict=True))
    start = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=start[1:])
    return Placements(document, form, part, epochs, start)
