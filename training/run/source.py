"""The data of a run: a prepared folder seen through the run's plan."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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
from ..stream.mixed_view import MixedViewDataset
from ..stream.phases import Phases
from ..stream.placement import Lengths
from ..stream.plan import PlanConfig, StreamPlan
from ..stream.prepared import PreparedSplit
from .config import BatchConfig, EvaluationConfig
from .rows import RowOrder, RowSource, read_rows

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
    borders = split.borders if plan.schedule.hand_off > 0 else None
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
