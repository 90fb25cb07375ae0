"""Where a model comes from: two files in a model folder, which every command that makes a folder of a model hands on.

``byteify.json`` (written by 'proxybyte byteify' alone) names the tokenizer model that it was. ``training.json`` has one
entry for each training run that the weights went through. A folder without ``training.json`` was never trained here,
and a model card says so. No model needs this module, so it does not travel to the Hub.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .errors import ProxyByteError
from .folders import write_text

BYTEIFY_REPORT = "byteify.json"
TRAINING_REPORT = "training.json"


@dataclass(frozen=True)
class DataFacts:
    """What whoever collected the text said of it.

    Attributes:
        datasets: names on the Hub.
        licenses: identifiers as the Hub spells them (``apache-2.0``).
        languages: ISO 639 codes (``en``) of natural languages.
    """

    datasets: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class CodesFacts:
    """The compressor behind the compressed view.

    Attributes:
        name: as it calls itself.
        family: such as ``bpe``.
        num_symbols: its symbols.
        ratio: bytes of text for each symbol, over the documents that have codes.
    """

    name: str
    family: str
    num_symbols: int
    ratio: float


@dataclass(frozen=True)
class TrainingFacts:
    """One run that a model's weights went through, up to the moment that they were written.

    Attributes:
        steps: finished optimizer steps.
        symbols: symbols of packed rows, sentinels and padding among them.
        flops: training FLOPs (:mod:`proxybyte.flops`).
        seen: documents, bytes and symbols seen in each view, and the view's share, by the names of ``metrics.jsonl``.
        row_length: symbols of a row.
        weights: ``all``, or the kind of adapter that was trained.
        chat: whether on conversations.
        seed: of the run.
        codes: the compressor; ``None`` where there was none.
        data: of the text.
        validation: the last bits per byte on the validation split, by the names of ``metrics.jsonl``.
    """

    steps: int
    symbols: float
    flops: float
    seen: Mapping[str, float]
    row_length: int
    weights: str
    chat: bool
    seed: int
    codes: CodesFacts | None = None
    data: DataFacts = field(default_factory=DataFacts)
    validation: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from.

    Attributes:
        byteified: content of ``byteify.json``; ``None`` for a model that began from random weights, or elsewhere.
        training: its runs, the first one first.
    """

    byteified: Mapping[str, Any] | None = None
    training: tuple[TrainingFacts, ...] = ()

    @property
    def base(self) -> str | None:
        """Name of the tokenizer model that it was, as typed then: a Hub name, or of a folder its last part."""
        return None if self.byteified is None else str(self.byteified["base"])

    @property
    def data(self) -> DataFacts:
        """Of all runs together, in order, each word once."""
        told = [run.data for run in self.training]
        return DataFacts(
            _once(name for facts in told for name in facts.datasets),
            _once(name for facts in told for name in facts.licenses),
            _once(name for facts in told for name in facts.languages),
        )


_RUNS = TypeAdapter(tuple[TrainingFacts, ...])


def read_provenance(folder: Path) -> Provenance:
    """What the two files in ``folder`` say; each may be absent.

    Raises:
        ProxyByteError: if one is damaged.
    """
    byteified: Any = None
    if (path := folder / BYTEIFY_REPORT).is_file():
        try:
            byteified = json.loads(path.read_bytes())
            str(byteified["base"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProxyByteError(f"{path} is damaged: copy it again from the folder of 'proxybyte byteify'") from error
    runs: tuple[TrainingFacts, ...] = ()
    if (path := folder / TRAINING_REPORT).is_file():
        try:
            runs = _RUNS.validate_json(path.read_bytes())
        except ValidationError as error:
            raise ProxyByteError(f"{path} is damaged: copy it again from the run") from error
    return Provenance(byteified, runs)


def write_training(folder: Path, runs: Sequence[TrainingFacts]) -> None:
    """Write ``training.json`` into a model folder."""
    write_text(folder / TRAINING_REPORT, _RUNS.dump_json(tuple(runs), indent=2).decode() + "\n")


def copy_provenance(source: Path, folder: Path) -> None:
    """Hand both files of the model folder ``source`` on to ``folder``, those that are there."""
    for name in (BYTEIFY_REPORT, TRAINING_REPORT):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _once(words: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
