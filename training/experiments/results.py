"""What a finished cell leaves: ``result.json``, written whole or not at all, known by its settings' fingerprint."""

import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from proxybyte.errors import ProxyByteError
from proxybyte.eval import Noise, NoiseCurve
from proxybyte.folders import write_text

from .grid import Cell
from .recorded import refuse_changed

RESULT_FILE = "result.json"
SETTINGS_FILE = "cell.json"
RUN_FOLDER = "run"


@dataclass(frozen=True)
class Point:
    """One evaluation during training.

    Attributes:
        step: finished steps.
        flops: spent so far.
        text_bytes: bytes of text shown so far, both views.
        bits_per_byte: on the few documents that are scored during training, in the cell's own view.
    """

    step: int
    flops: float
    text_bytes: float
    bits_per_byte: float


@dataclass(frozen=True)
class TransferPoint:
    """What an evaluation during training says of heads of documents in both views, in bits per byte of text.

    Attributes:
        step: finished steps.
        flops: spent so far.
        raw: bytes alone.
        raw_given: bytes with the compressed view in the context.
        compressed: symbols alone.
        compressed_given: symbols with the bytes in the context.
    """

    step: int
    flops: float
    raw: float
    raw_given: float
    compressed: float
    compressed_given: float


@dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Attributes:
        cell: its name.
        condition: its row of the report.
        fingerprint: of its settings.
        settings: all that the result depends on.
        parameters: weights of the model.
        backbone_parameters: those beside embedding and head.
        steps: optimizer steps.
        flops: spent in training, by the formula.
        symbols: of packed rows.
        raw_bytes: text shown raw.
        compressed_bytes: text shown compressed.
        seconds: of training and scoring, interruptions left out of account only if it was not interrupted.
        raw_bpb: bits per byte of the final documents, raw view; ``None`` where the cell never saw one.
        compressed_bpb: of the same documents in the compressed view; ``None`` where there is none to score.
        scored_bytes: bytes of the final documents.
        curve: evaluations during training.
        machine: where it ran.
        transfer: whether the views meet, where the cell's evaluations asked (``evaluation.transfer``).
        noise: bits per byte of noised text in the cell's own view, one curve a kind, where the plan asks.
    """

    cell: str
    condition: str
    fingerprint: str
    settings: dict[str, Any] = field(repr=False)
    parameters: int
    backbone_parameters: int
    steps: int
    flops: float
    symbols: float
    raw_bytes: float
    compressed_bytes: float
    seconds: float
    raw_bpb: float | None
    compressed_bpb: float | None
    scored_bytes: int
    curve: tuple[Point, ...]
    machine: str
    transfer: tuple[TransferPoint, ...] = ()
    noise: tuple[NoiseCurve, ...] = ()

    @property
    def bits_per_byte(self) -> float:
        """The figure: of raw bytes where the model reads them, else of the view that it reads."""
        figure = self.compressed_bpb if self.raw_bpb is None else self.raw_bpb
        assert figure is not None
        return figure


def machine_name() -> str:
    """Processor or accelerator, and the version of PyTorch."""
    if torch.accelerator.is_available():
        device = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else str(torch.accelerator.current_accelerator())
        )
    else:
        device = f"{_cpu_name()}, {torch.get_num_threads()} thread(s)"
    return f"{device}, torch {torch.__version__}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def save_result(result: CellResult, folder: Path) -> None:
    """Write the result so that it is whole and on disk, or absent."""
    write_text(folder / RESULT_FILE, json.dumps(asdict(result), indent=1))


def _noise_curve(model: str, kind: str, shares: list[float], bits: list[list[float]]) -> NoiseCurve:
    return NoiseCurve(model, Noise(kind), tuple(shares), tuple(map(tuple, bits)))


def load_result(folder: Path, cell: Cell) -> CellResult | None:
    """The result of ``cell`` in its folder, ``None`` if it is not finished.

    Raises:
        ProxyByteError: if the file is no result, or that of another version of the plan (names what differs).
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_bytes())
        curve = tuple(Point(**point) for point in values.pop("curve"))
        transfer = tuple(TransferPoint(**point) for point in values.pop("transfer", ()))
        noise = tuple(_noise_curve(**line) for line in values.pop("noise", ()))
        result = CellResult(**values, curve=curve, transfer=transfer, noise=noise)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProxyByteError(f"{path} is no result of a cell ({error}): remove it to run the cell again") from error
    refuse_changed(result.settings, cell.settings, path)
    return result


def claim_settings(folder: Path, cell: Cell) -> None:
    """Note in a cell's folder what it is a run of.

    Raises:
        ProxyByteError: if a run of another version of the plan is in it.
    """
    path = folder / SETTINGS_FILE
    folder.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        try:
            saved = dict(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise ProxyByteError(f"{path} cannot be read ({error}): remove {folder} to run the cell again") from error
        refuse_changed(saved, cell.settings, path)
        return
    write_text(path, json.dumps(cell.settings.values, indent=1))
