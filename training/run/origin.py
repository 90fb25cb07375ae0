"""What a run says of itself in every model folder that it writes (:mod:`proxybyte.provenance`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxybyte.artefacts import PREPARED_MANIFEST, ModelFolder
from proxybyte.provenance import (
    CodesFacts,
    DataFacts,
    TrainingFacts,
    copy_provenance,
    read_provenance,
    write_training,
)

from ..prepare.manifest import read_manifest
from ..stream.plan import PlanConfig
from .config import AdapterKind
from .metrics import Totals

_WHOLE = "all"


@dataclass(frozen=True)
class Origin:
    """Where a run's model comes from.

    Attributes:
        base: what it started from; ``None`` for a new one.
        data: a prepared folder, or a file of conversations.
        plan: what was shown of it.
        adapter: what was trained in the place of its weights.
        seed: of its first weights.
    """

    base: ModelFolder | None
    data: Path
    plan: PlanConfig
    adapter: AdapterKind
    seed: int

    def write(self, folder: Path, step: int, totals: Totals, validation: Mapping[str, float]) -> None:
        """Hand on what the model came with, and add this run to it.

        Args:
            folder: of the model, or of the adapter.
            step: finished steps.
            totals: what was seen so far.
            validation: the last bits per byte by metric name; empty where none was measured.
        """
        if self.base is not None:
            copy_provenance(self.base.model, folder)
        codes, data = self._of_data()
        facts = TrainingFacts(
            steps=step,
            symbols=totals.symbols,
            flops=totals.flops,
            seen=totals.shares(),
            row_length=self.plan.row_length,
            weights=_WHOLE if self.adapter is AdapterKind.NONE else str(self.adapter),
            chat=self.data.is_file(),
            seed=self.seed,
            codes=codes,
            data=data,
            validation=dict(validation),
        )
        write_training(folder, (*read_provenance(folder).training, facts))

    def _of_data(self) -> tuple[CodesFacts | None, DataFacts]:
        """Of a prepared folder; conversations, and a folder without a manifest, say nothing of themselves."""
        if not (self.data / PREPARED_MANIFEST).is_file():
            return None, DataFacts()
        manifest = read_manifest(self.data)
        info = manifest.compressor
        codes = CodesFacts(info.name, info.family, info.num_symbols, manifest.ratio)
        return codes if self.plan.schedule.shows_compressed else None, manifest.data
