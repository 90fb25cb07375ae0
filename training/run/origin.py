"""What a run says of itself in every model folder that it writes (:mod:`proxybyte.provenance`)."""

from collections.abc import Mapping
from pathlib import Path

from proxybyte.artefacts import PREPARED_MANIFEST
from proxybyte.provenance import (
    CodesFacts,
    DataFacts,
    TrainingFacts,
    copy_provenance,
    read_provenance,
    write_training,
)

from ..prepare.manifest import read_manifest
from .config import AdapterKind, TrainConfig
from .metrics import Totals

_WHOLE = "all"


def write_origin(folder: Path, config: TrainConfig, step: int, totals: Totals, validation: Mapping[str, float]) -> None:
    """Hand on what the model came with, and add this run to it.

    Args:
        folder: of the model, or of the adapter.
        config: the run.
        step: finished steps.
        totals: what was seen so far.
        validation: the last bits per byte by metric name; empty where none was measured.
    """
    base = config.model.base
    if base is not None:
        copy_provenance(base.model, folder)
    codes, data = _of_data(config)
    kind = config.trainable.adapter.kind
    facts = TrainingFacts(
        steps=step,
        symbols=totals.symbols,
        flops=totals.flops,
        seen=totals.shares(),
        row_length=config.plan.row_length,
        weights=_WHOLE if kind is AdapterKind.NONE else str(kind),
        chat=config.data.is_file(),
        seed=config.seed,
        codes=codes,
        data=data,
        validation=dict(validation),
    )
    write_training(folder, (*read_provenance(folder).training, facts))


def _of_data(config: TrainConfig) -> tuple[CodesFacts | None, DataFacts]:
    """Of a prepared folder; conversations, and a folder without a manifest, say nothing of themselves."""
    if not (config.data / PREPARED_MANIFEST).is_file():
        return None, DataFacts()
    manifest = read_manifest(config.data)
    info = manifest.compressor
    codes = CodesFacts(info.name, info.family, info.num_symbols, manifest.ratio)
    return codes if config.plan.schedule.shows_compressed else None, manifest.data
