"""The data of a run: a prepared folder seen through the run's plan."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from proxybyte import build_tokenizer
from proxybyte.artefacts import COMPRESSOR_FOLDER, PREPARED_MANIFEST, Split
from proxybyte.errors import ProxyByteError
from proxybyte.model_loading import chat_tokenizer_in
from proxybyte.symbols import Special

from ..chat import ChatDataset, read_chats
from ..compressors import load_compressor
from ..prepare.manifest import read_manifest
from ..stream.mixed_view import MixedViewDataset
from ..stream.phases import Phases
from ..stream.placement import Lengths
from ..stream.plan import StreamPlan
from ..stream.prepared import PreparedSplit
from .config import EvaluationConfig, TrainConfig
from .rows import RowOrder, RowSource, read_rows

_SAMPLED_ROWS = 64


@dataclass(frozen=True)
class TrainingData:
    """A prepared folder, or a file of conversations, and what the run will do with it.

    Attributes:
        dataset: row ``i`` of the run.
        phases: at which step each phase of the plan begins; one phase for conversations.
        num_codes: codes of the compressor, 320 + code is a symbol; 0 where the plan shows raw bytes alone.
        compressor: the folder that carries it; ``None`` for conversations with a model that has none.
        fingerprint: of all that the rows hold beside the plan: documents and their codes, or conversations.
        validation: the validation split, or ``None`` where there is none.
        chat: the tokenizer whose template wrote the conversations, ``None`` for other data.
    """

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
        split = self.validation
        if split is None:
            return []
        chosen = np.unique(np.linspace(0, len(split) - 1, min(config.documents, len(split))).astype(int))
        return [split.raw(i, 0, min(int(split.n_bytes[i]), config.max_bytes)).tobytes() for i in chosen.tolist()]

    def row_order(self, config: TrainConfig) -> RowOrder:
        """Which rows make each step."""
        batch, phases = config.batch, self.phases
        borders = {phases.steady, phases.decay} - {0, self.steps}
        return RowOrder(batch.rows_per_step, self.steps, batch.shuffle_steps, config.plan.seed, tuple(sorted(borders)))

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


def open_data(config: TrainConfig) -> TrainingData:
    """Open ``config.data`` and lay out the plan.

    Raises:
        ProxyByteError: if the folder or a shard of it is missing, a line is no conversation, or the plan holds less
            than one step.
    """
    if config.data.is_file():
        return _open_chats(config)
    split = PreparedSplit(config.data / Split.TRAIN)
    plan = StreamPlan(_lengths(split, config), config.plan, config.batch.rows_per_step)
    _whole_steps(plan.num_rows, config)
    validation = config.data / Split.VALIDATION
    compressor = load_compressor(config.data / COMPRESSOR_FOLDER)
    return TrainingData(
        dataset=MixedViewDataset(split, plan),
        phases=plan.phases,
        num_codes=compressor.num_symbols if _reads_codes(config) else 0,
        compressor=config.data / COMPRESSOR_FOLDER,
        fingerprint=_fingerprint(config.data, split),
        validation=PreparedSplit(validation) if validation.is_dir() else None,
    )


def _reads_codes(config: TrainConfig) -> bool:
    """Whether the model needs rows for the compressor's symbols."""
    shown = config.plan.schedule.shows_compressed and not config.plan.superposed
    return shown or config.suffix_rows.mix.value > 0 or config.levers.cross_view.symbols.value > 0


def _lengths(split: PreparedSplit, config: TrainConfig) -> Lengths:
    if config.plan.superposed:
        return Lengths.superposed(split.n_bytes, config.plan.superposed)
    borders = split.borders if config.plan.schedule.hand_off > 0 else None
    return Lengths(split.n_bytes, split.n_symbols, borders if borders is not None and borders.any() else None)


def _open_chats(config: TrainConfig) -> TrainingData:
    """Conversations under the chat template that the model carries, or our own."""
    base = config.model.base
    tokenizer = (chat_tokenizer_in(base.model) if base else None) or build_tokenizer(
        chat=True, opening=config.plan.document_opening
    )
    dataset = ChatDataset(read_chats(config.data, tokenizer), config.plan, str(config.data))
    return TrainingData(
        dataset=dataset,
        phases=Phases.of(_whole_steps(len(dataset), config)),
        num_codes=0,
        compressor=base.compressor if base else None,
        fingerprint=_digest(array for chat in dataset.chats for array in (chat.input_ids, chat.labels)),
        validation=None,
        chat=tokenizer,
    )


def _whole_steps(rows: int, config: TrainConfig) -> int:
    steps = rows // config.batch.rows_per_step
    if steps == 0:
        raise ProxyByteError(
            f"the plan holds {rows} row(s) of {config.plan.row_length} symbols, less than one step of "
            f"{config.batch.rows_per_step}: raise plan.budget, or lower batch.rows_per_step or plan.row_length"
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
