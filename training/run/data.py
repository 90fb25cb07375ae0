"""The data of a run: a prepared folder seen through the run's plan."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerFast

from proxybyte import build_tokenizer
from proxybyte.artefacts import COMPRESSOR_FOLDER, PREPARED_MANIFEST, ModelFolder, Split
from proxybyte.errors import ProxyByteError
from proxybyte.model_loading import chat_tokenizer_in
from proxybyte.symbols import Special

from ..chat import ChatDataset, read_chats
from ..compressors import load_compressor
from ..prepare.manifest import read_manifest
from ..stream.mixed_view import MixedViewDataset, PackedBatch, RowBatch, collate
from ..stream.placement import Lengths
from ..stream.plan import PlanConfig, StreamPlan
from ..stream.prepared import PreparedSplit
from ..stream.schedule import Phases
from .config import BatchConfig, EvaluationConfig
from .metrics import count_batch


class RowSource(Protocol):
    """A dataset of packed rows by random access."""

    @property
    def where(self) -> str:
        """What it reads from, for messages."""
        ...

    def __len__(self) -> int: ...

    def batch(self, rows: Sequence[int]) -> RowBatch:
        """Rows ``rows``, in that order."""
        ...

    def describe(self) -> str:
        """What the run will show."""
        ...


@dataclass(frozen=True)
class RowOrder:
    """Which rows of the plan make each step: a pure function of the step.

    Consecutive rows show the same document, and a document has one view: steps of consecutive rows would swing from one
    view to the other (measured: the loss went from 2.6 to 13 where the first compressed document began). So the rows
    of ``shuffle_steps`` steps are shuffled together; a phase of the schedule is not mixed with the next.

    Attributes:
        rows_per_step: rows of a step over all processes.
        steps: steps of the run.
        shuffle_steps: length of a stretch that is shuffled; shorter at the end of a phase.
        seed: of the shuffle.
        phases: steps at which a phase of the schedule begins, ascending, beside 0.
    """

    rows_per_step: int
    steps: int
    shuffle_steps: int = 1
    seed: int = 0
    phases: tuple[int, ...] = ()

    def stretch(self, step: int) -> tuple[int, int]:
        """First and last-plus-one step of the stretch that ``step`` lies in."""
        edges = (0, *self.phases, self.steps)
        phase = bisect_right(edges, step) - 1
        first = edges[phase] + (step - edges[phase]) // self.shuffle_steps * self.shuffle_steps
        return first, min(first + self.shuffle_steps, edges[phase + 1])

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of step ``step`` (from 0), shape ``(rows_per_step,)``."""
        first, last = self.stretch(step)
        order = _permutation(self.seed, first, (last - first) * self.rows_per_step)
        begin = (step - first) * self.rows_per_step
        return first * self.rows_per_step + order[begin : begin + self.rows_per_step]


@lru_cache(maxsize=4)
def _permutation(seed: int, first: int, count: int) -> np.ndarray:
    # Raw bits of a bit generator: unlike those of Generator's methods, their stream never changes between versions.
    return np.argsort(np.random.Philox(np.random.SeedSequence([seed, first, count])).random_raw(count), kind="stable")


@dataclass(frozen=True)
class RowShare:
    """The rows of one process.

    The rows of a step go to micro-batches first and to processes second, so that another number of processes computes
    the same micro-batches.

    Attributes:
        order: the rows of each step.
        rows_per_device: rows of one micro-batch of one process.
        rank: this process.
        size: number of processes.
    """

    order: RowOrder
    rows_per_device: int
    rank: int = 0
    size: int = 1

    @property
    def micro_batches(self) -> int:
        """Forward passes of each process in a step."""
        return self.order.rows_per_step // (self.rows_per_device * self.size)

    def rows(self, step: int, micro_batch: int) -> list[int]:
        """Row numbers of one micro-batch of step ``step`` (from 0)."""
        first = (micro_batch * self.size + self.rank) * self.rows_per_device
        return self.order.rows(step)[first : first + self.rows_per_device].tolist()


@dataclass(frozen=True)
class StepBatches:
    """What one process feeds its model in one step.

    Attributes:
        batches: the micro-batches.
        counts: what they hold, shape ``(micro_batches, len(Count))``.
    """

    batches: tuple[PackedBatch, ...]
    counts: np.ndarray


def read_rows(dataset: RowSource, rows: Sequence[int]) -> RowBatch:
    """Read rows, in the order given.

    Raises:
        ProxyByteError: naming them, if they cannot be read.
    """
    try:
        return dataset.batch(rows)
    except (OSError, ValueError, IndexError) as error:
        where = f"row(s) {', '.join(map(str, rows))} cannot be read from {dataset.where}"
        raise ProxyByteError(f"{where}: {error}; prepare the data again") from error


def fetch(dataset: RowSource, share: RowShare, step: int) -> StepBatches:
    """Read one step's rows.

    Raises:
        ProxyByteError: naming the rows that cannot be read.
    """
    batches = tuple(collate(read_rows(dataset, share.rows(step, index))) for index in range(share.micro_batches))
    return StepBatches(batches, np.stack([count_batch(batch) for batch in batches]))


def fetch_ahead(dataset: RowSource, share: RowShare, steps: range) -> Iterator[StepBatches]:
    """Batches of ``steps`` in order; the next is read by a thread while the last is trained on."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows") as thread:
        upcoming = [thread.submit(fetch, dataset, share, step) for step in steps[:1]]
        for step in steps:
            current = upcoming.pop()
            if step + 1 in steps:
                upcoming.append(thread.submit(fetch, dataset, share, step + 1))
            yield current.result()


_SAMPLED_ROWS = 64


@dataclass(frozen=True)
class TrainingData:
    """A prepared folder, or a file of conversations, and what the run will do with it.

    Attributes:
        path: the folder or file.
        dataset: row ``i`` of the run.
        phases: at which step each phase of the plan begins; one phase for conversations.
        num_codes: codes of the compressor, 320 + code is a symbol; 0 where the plan shows raw bytes alone.
        compressor: the folder that carries it; ``None`` for conversations with a model that has none.
        fingerprint: of all that the rows hold beside the plan: documents and their codes, or conversations.
        validation: the validation split, or ``None`` where there is none.
        chat: the tokenizer whose template wrote the conversations, ``None`` for other data.
    """

    path: Path
    dataset: RowSource
    phases: Phases
    num_codes: int
    compressor: Path | None
    fingerprint: str
    validation: PreparedSplit | None
    chat: PreTrainedTokenizerFast | None = None

    @property
    def mixed_views(self) -> MixedViewDataset:
        """The dataset of a prepared folder.

        Raises:
            ProxyByteError: if the data are conversations, which have no plan of views.
        """
        if not isinstance(self.dataset, MixedViewDataset):
            raise ProxyByteError(f"{self.dataset.where} holds conversations: give a folder of 'proxybyte prepare'")
        return self.dataset

    def validation_documents(self, config: EvaluationConfig) -> list[bytes]:
        """Heads of up to ``config.documents`` validation documents, spread evenly over the split."""
        return document_heads(self.validation, config.documents, config.max_bytes)

    def row_order(self, batch: BatchConfig, seed: int) -> RowOrder:
        """Which rows make each step."""
        borders = {self.phases.steady, self.phases.decay} - {0, self.steps}
        return RowOrder(batch.rows_per_step, self.steps, batch.shuffle_steps, seed, tuple(sorted(borders)))

    @property
    def steps(self) -> int:
        """Whole optimizer steps of the run; rows beyond the last whole step are left out."""
        return self.phases.steps

    @property
    def mean_keys(self) -> float:
        """Positions that a symbol attends to, itself among them: the mean over a sample of rows."""
        sample = np.unique(np.linspace(0, len(self.dataset) - 1, _SAMPLED_ROWS).astype(int)).tolist()
        rows = [read_rows(self.dataset, [row]) for row in sample]
        positions = [batch.position_ids[batch.input_ids != Special.PAD] for batch in rows]
        return float(np.concatenate(positions).mean() + 1)

    @property
    def document_length(self) -> int:
        """Length of a document alone whose symbols attend to as many positions as these do, on average.

        A causal document of L symbols attends to (L + 1) / 2 on average, which is how ``training_flops`` counts.
        """
        return max(1, round(2 * self.mean_keys - 1))

    def describe(self) -> str:
        """What the plan will do."""
        return f"{self.steps:,} steps\n{self.dataset.describe()}"


def open_prepared(folder: Path, plan: PlanConfig, rows_per_step: int, reads_codes: bool) -> TrainingData:
    """Open a folder of ``proxybyte prepare`` and lay out its plan.

    Args:
        folder: with a compressor.
        plan: what is shown of it.
        rows_per_step: rows of one step over all processes.
        reads_codes: whether the model needs rows for the compressor's symbols.

    Raises:
        ProxyByteError: if the folder or a shard of it is missing, or the plan holds less than one step.
    """
    split = PreparedSplit(folder / Split.TRAIN)
    laid_out = StreamPlan(_lengths(split, plan), plan, rows_per_step)
    _whole_steps(laid_out.num_rows, plan.row_length, rows_per_step)
    validation = folder / Split.VALIDATION
    compressor = load_compressor(folder / COMPRESSOR_FOLDER)
    return TrainingData(
        path=folder,
        dataset=MixedViewDataset(split, laid_out),
        phases=laid_out.phases,
        num_codes=compressor.num_symbols if reads_codes else 0,
        compressor=folder / COMPRESSOR_FOLDER,
        fingerprint=_fingerprint(folder, split),
        validation=PreparedSplit(validation) if validation.is_dir() else None,
    )


def _lengths(split: PreparedSplit, plan: PlanConfig) -> Lengths:
    if plan.superposed:
        return Lengths.superposed(split.n_bytes, plan.superposed)
    schedule = plan.schedule
    borders = split.borders if schedule.hand_off > 0 or schedule.switch > 0 else None
    return Lengths(split.n_bytes, split.n_symbols, borders if borders is not None and borders.any() else None)


def open_chats(file: Path, plan: PlanConfig, rows_per_step: int, base: ModelFolder | None) -> TrainingData:
    """Open conversations, under the chat template that the model ``base`` carries, or our own.

    Raises:
        ProxyByteError: if a line is no conversation, or they fill less than one step.
    """
    carried = chat_tokenizer_in(base.model) if base else None
    tokenizer = carried or build_tokenizer(chat=True, opening=plan.document_opening)
    dataset = ChatDataset(read_chats(file, tokenizer), plan, str(file))
    return TrainingData(
        path=file,
        dataset=dataset,
        phases=Phases.of(_whole_steps(len(dataset), plan.row_length, rows_per_step)),
        num_codes=0,
        compressor=base.compressor if base else None,
        fingerprint=_digest(array for chat in dataset.chats for array in (chat.input_ids, chat.labels)),
        validation=None,
        chat=tokenizer,
    )


def document_heads(split: PreparedSplit | None, number: int, max_bytes: int) -> list[bytes]:
    """The first ``max_bytes`` bytes of up to ``number`` documents, spread evenly over the split; none of no split."""
    if split is None:
        return []
    chosen = np.unique(np.linspace(0, len(split) - 1, min(number, len(split))).astype(int))
    return [split.raw(i, 0, min(int(split.n_bytes[i]), max_bytes)).tobytes() for i in chosen.tolist()]


def _whole_steps(rows: int, row_length: int, rows_per_step: int) -> int:
    steps = rows // rows_per_step
    if steps == 0:
        raise ProxyByteError(
            f"the plan holds {rows} row(s) of {row_length} symbols, less than one step of {rows_per_step}: raise "
            "plan.budget, or lower batch.rows_per_step or plan.row_length"
        )
    return steps


def _fingerprint(folder: Path, split: PreparedSplit) -> str:
    """What the manifest says; of a folder that was made without one, a hash of all documents and codes."""
    if (folder / PREPARED_MANIFEST).is_file():
        return read_manifest(folder).fingerprint
    documents = zip(range(len(split)), split.n_bytes.tolist(), split.n_symbols.tolist(), strict=True)
    return _digest(
        array
        for number, n_bytes, n_symbols in documents
        for array in (split.raw(number, 0, n_bytes), split.compressed(number, 0, max(n_symbols, 0)))
    )


def _digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.nbytes.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
