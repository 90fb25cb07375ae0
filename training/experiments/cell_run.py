"""One cell from its settings to its result: matched, trained by the public entry, scored."""

import logging
import math
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from proxybyte import ProxyByteForCausalLM
from proxybyte.artefacts import CHECKPOINTS_FOLDER, COMPRESSOR_FOLDER, MODEL_FOLDER, Split
from proxybyte.errors import ProxyByteError
from proxybyte.eval import NoiseCurve, Scoring, bits_per_byte, compressed_bits_per_byte, measure_noise
from proxybyte.folders import tidy
from proxybyte.model_loading import SAFELY
from proxybyte.symbols import View

from ..compressors import load_compressor
from ..machine import StopRequest
from ..run.assemble import model_source, open_data, row_flops
from ..run.config import TrainConfig
from ..run.config_io import CONFIG_FILE, save_config
from ..run.data import TrainingData, document_heads
from ..run.metrics import MetricsLog
from ..run.validation import Given, TwoViews, code_documents, transfer_metric
from ..stream.plan import BudgetUnit
from ..stream.plan_report import report
from ..stream.prepared import PreparedSplit
from ..train import train
from .grid import Cell
from .results import RUN_FOLDER, CellResult, Point, TransferPoint, claim_settings, machine_name, save_result
from .schema import ArmKind, EvaluationPlan, MatchBy

_ROUNDS = 3
_RAW_DATA_ROUNDS = 20
_RAW_DATA_TOLERANCE = 0.002


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        config: the run with its budget.
        steps: optimizer steps.
        flops: training FLOPs by the formula, of all steps.
    """

    config: TrainConfig
    steps: int
    flops: float


def settle_length(config: TrainConfig, by: MatchBy, budget: float) -> Length:
    """The run as long as ``budget`` allows; over or short of it by half a step at most (of FLOPs and symbols), by
    two thousandths for raw data, or by a document's end for data.

    Args:
        config: the run; its ``data`` is there.
        by: what ``budget`` counts.
        budget: FLOPs, symbols or bytes of text.

    Raises:
        ProxyByteError: if the budget does not buy a single step.
    """
    match by:
        case MatchBy.FLOPS:
            config = _by_flops(config, budget)
        case MatchBy.SYMBOLS:
            config = _with_steps(config, budget / _symbols_per_step(config))
        case MatchBy.DATA:
            config = _with_budget(config, budget, BudgetUnit.TEXT_BYTES)
        case MatchBy.RAW_DATA:
            config = _by_raw_data(config, budget)
    data = open_data(config)
    return Length(config, data.steps, data.steps * config.batch.rows_per_step * _row_flops(config, data))


def _by_flops(config: TrainConfig, budget: float) -> TrainConfig:
    settled = _with_steps(config, 1)
    for _ in range(_ROUNDS):
        per_step = config.batch.rows_per_step * _row_flops(settled, open_data(settled))
        settled = _with_steps(config, budget / per_step)
    return settled


def _by_raw_data(config: TrainConfig, budget: float) -> TrainConfig:
    """By bytes of all text, in rounds: what a longer run shows raw is not quite in proportion to its length."""
    text = budget
    for _ in range(_RAW_DATA_ROUNDS):
        settled = _with_budget(config, text, BudgetUnit.TEXT_BYTES)
        shares = report(open_data(settled).mixed_views.plan).shares
        raw = sum(share.text_bytes for share in shares if share.view is View.RAW)
        if abs(raw / budget - 1) <= _RAW_DATA_TOLERANCE:
            break
        text *= float(np.clip(budget / max(raw, 1), 0.1, 20.0))
    return settled


def _row_flops(config: TrainConfig, data: TrainingData) -> float:
    return row_flops(config, model_source(config, data.num_codes).new_shape(), data)


def _symbols_per_step(config: TrainConfig) -> int:
    return config.batch.rows_per_step * config.plan.row_length


def _with_steps(config: TrainConfig, steps: float) -> TrainConfig:
    """The run in a whole number of steps, the nearest to ``steps``."""
    if steps < 0.5:
        raise ProxyByteError(f"the budget buys {steps:.2g} optimizer steps: raise match.budget or lower the batch")
    return _with_budget(config, max(1, round(steps)) * _symbols_per_step(config), BudgetUnit.SYMBOLS)


def _with_budget(config: TrainConfig, budget: float, unit: BudgetUnit) -> TrainConfig:
    plan = config.plan.model_copy(update={"budget": float(budget), "budget_unit": unit})
    return config.model_copy(update={"plan": plan})


log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class CellJob:
    """What a cell needs beside itself.

    Attributes:
        folder: of the cell.
        data: prepared with its compressor.
        match: what its budget counts.
        evaluation: what to score.
        launcher: words before the module of the training entry (``accelerate launch --num_processes 8 -m``); empty to
            train in this process.
    """

    folder: Path
    data: Path
    match: MatchBy
    evaluation: EvaluationPlan
    launcher: tuple[str, ...] = ()


def run_cell(cell: Cell, job: CellJob) -> CellResult | int:
    """Train and score one cell, going on from its checkpoint if it was interrupted.

    Returns:
        Its result, which is on disk; the number of the signal that asked to stop, after a checkpoint.

    Raises:
        ProxyByteError: if its folder holds another version of it, or training fails.
    """
    started = time.perf_counter()
    claim_settings(job.folder, cell)
    output = job.folder / RUN_FOLDER
    config = cell.config.model_copy(update={"output": output, "data": job.data})
    length = _paced(settle_length(config, job.match, cell.budget), job.evaluation.points)
    log.info("%s: %d steps, %.3g FLOPs", cell.name, length.steps, length.flops)
    if stopped_by := _train(length.config, job):
        return stopped_by
    result = _measure(cell, job, length, time.perf_counter() - started)
    save_result(result, job.folder)
    _drop_checkpoints(job.folder)
    return result


def clear_away(folder: Path) -> None:
    """Remove what a process left in a finished cell that was killed before it could."""
    tidy(folder)
    _drop_checkpoints(folder)


def _drop_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / RUN_FOLDER / CHECKPOINTS_FOLDER, ignore_errors=True)


def _paced(length: Length, points: int) -> Length:
    """The run with its evaluations and checkpoints spread over its steps."""
    every = math.ceil(length.steps / points)
    evaluation = length.config.evaluation.model_copy(update={"every": every})
    checkpoint = length.config.checkpoint.model_copy(update={"every": every})
    config = length.config.model_copy(update={"evaluation": evaluation, "checkpoint": checkpoint})
    return Length(config, length.steps, length.flops)


def _train(config: TrainConfig, job: CellJob) -> int:
    """Train to the end; the signal that asked to stop before it, else 0."""
    if not job.launcher:
        return train(config).stopped_by
    save_config(config, job.folder)
    words = [*job.launcher, "proxybyte.training.train", "--config", str(job.folder / CONFIG_FILE)]
    log.info("$ %s", shlex.join(words))
    # What a launcher's processes were asked by themselves is as good as told to end.
    return launch(words) or (0 if (config.output / MODEL_FOLDER).is_dir() else signal.SIGTERM)


def launch(words: Sequence[str]) -> int:
    """Run a command to its end; SIGTERM and Ctrl-C are passed on to all its processes once, so that they save and end.

    Returns:
        0 if it ran to its end, else the signal that asked to stop.

    Raises:
        ProxyByteError: if the command cannot be run, or fails.
    """
    with StopRequest() as stop:
        try:
            # A group of its own: a terminal's Ctrl-C reaches it once, through here.
            process = subprocess.Popen(words, start_new_session=True)
        except OSError as error:
            raise ProxyByteError(f"--launch: {words[0]} cannot be run: {error.strerror}") from error
        told = False
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
            if stop.number and not told:
                told = True
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
    if process.returncode and not stop.number:
        raise ProxyByteError(f"{shlex.join(words)} ended with {process.returncode}: its message is above")
    return stop.number


def _measure(cell: Cell, job: CellJob, length: Length, seconds: float) -> CellResult:
    config = length.config
    started = time.perf_counter()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    device = torch.device("cpu") if config.compute.device == "cpu" else device
    model: Any = ProxyByteForCausalLM.from_pretrained(config.output / MODEL_FOLDER, dtype=torch.float32, **SAFELY)
    model = model.to(device)
    documents = final_documents(job.data, job.evaluation)
    scoring = Scoring(window=config.plan.row_capacity, progress=True)
    raw, compressed = cell.kind is not ArmKind.COMPRESSED, _reads_codes(cell)
    sizes = [len(text) for text in documents.texts]
    last = [line for line in MetricsLog(config.output).read() if line["kind"] == "train"][-1]
    backbone = sum(weight.numel() for weight in model.model.parameters()) - model.get_input_embeddings().weight.numel()
    return CellResult(
        cell=cell.name,
        condition=cell.condition,
        fingerprint=cell.settings.fingerprint,
        settings=cell.settings.values,
        parameters=model.num_parameters(),
        backbone_parameters=backbone,
        steps=length.steps,
        flops=last["flops"],
        symbols=last["symbols"],
        raw_bytes=last["raw/bytes"],
        compressed_bytes=last["compressed/bytes"],
        raw_bpb=bits_per_byte(model, documents.texts, scoring).bits_per_byte if raw else None,
        compressed_bpb=(
            compressed_bits_per_byte(model, documents.codes, sizes, scoring).bits_per_byte if compressed else None
        ),
        scored_bytes=sum(sizes),
        curve=tuple(_curve(config, cell)),
        machine=machine_name(),
        transfer=tuple(_transfer(config)),
        noise=tuple(_noise(cell, job, documents, model, scoring)) if job.evaluation.noise else (),
        seconds=round(seconds + time.perf_counter() - started, 1),
    )


def _reads_codes(cell: Cell) -> bool:
    """Whether the cell's model can be asked for a compressed view: it has seen one, marked as such."""
    plan = cell.config.plan
    return cell.kind is not ArmKind.BYTES and plan.view_sentinels and not plan.superposed


def final_documents(data: Path, evaluation: EvaluationPlan) -> TwoViews:
    """Heads of held-out documents that the compressor of the data can code.

    Raises:
        ProxyByteError: if nothing was held out.
    """
    folder = data / Split.VALIDATION
    held_out = PreparedSplit(folder) if folder.is_dir() else None
    texts = document_heads(held_out, evaluation.final_documents, evaluation.final_max_bytes)
    if not texts:
        raise ProxyByteError(f"{data} holds no validation documents: prepare a corpus that has some")
    return code_documents(texts, load_compressor(data / COMPRESSOR_FOLDER))


def _curve(config: TrainConfig, cell: Cell) -> list[Point]:
    lines = MetricsLog(config.output).read()
    spent = {line["step"]: line for line in lines if line["kind"] == "train"}
    view = "compressed" if cell.kind is ArmKind.COMPRESSED else "raw"
    points = []
    for line in lines:
        if line["kind"] == "evaluation":
            seen = spent.get(line["step"], {"flops": 0.0, "raw/bytes": 0.0, "compressed/bytes": 0.0})
            text = seen["raw/bytes"] + seen["compressed/bytes"]
            points.append(Point(line["step"], seen["flops"], text, line[f"validation/{view}_bpb"]))
    return points


def _transfer(config: TrainConfig) -> list[TransferPoint]:
    lines = MetricsLog(config.output).read()
    flops = {line["step"]: line["flops"] for line in lines if line["kind"] == "train"}
    names = [transfer_metric(view, given) for view in View for given in Given]
    told = [line for line in lines if line["kind"] == "evaluation" and names[0] in line]
    return [TransferPoint(line["step"], flops.get(line["step"], 0.0), *(line[name] for name in names)) for line in told]


def _noise(cell: Cell, job: CellJob, documents: TwoViews, model: Any, scoring: Scoring) -> Iterator[NoiseCurve]:
    """Of the final documents, in the view that the cell is scored in; noised text is coded anew."""
    wanted = job.evaluation.noise
    assert wanted is not None
    compressor = load_compressor(job.data / COMPRESSOR_FOLDER)

    def score(texts: Sequence[bytes]) -> float:
        if cell.kind is not ArmKind.COMPRESSED:
            return bits_per_byte(model, texts, scoring).bits_per_byte
        two = code_documents(list(texts), compressor)
        sizes = [len(text) for text in two.texts]
        return compressed_bits_per_byte(model, two.codes, sizes, scoring).bits_per_byte

    texts = documents.texts[: wanted.documents]
    for kind in wanted.kinds:
        yield measure_noise(score, cell.condition, texts, kind, wanted.shares, range(wanted.seeds))
