"""The loop of a run: rows in, steps, metrics, evaluations and checkpoints out."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from proxybyte.artefacts import WEIGHTS_FOLDER
from proxybyte.progress import Progress

from ..machine import StopRequest
from .checkpoint import CheckpointFolder, RunState, host_copies, optimizer_tensors
from .config import CheckpointConfig, EvaluationConfig, LogConfig
from .data import RowShare, StepBatches, TrainingData, fetch_ahead
from .distributed import World
from .metrics import Count, MetricsLog, Totals, refuse_nan, step_losses
from .model_source import ModelOrigin
from .sharded import OPTIMIZER_FOLDER, is_sharded, stored_tensors
from .step import Engine, StepResult, raw_gradient_norm, train_step


@dataclass(frozen=True)
class Run:
    """Everything a loop works with.

    Attributes:
        output: the run folder.
        recorded: the run's configuration, as a checkpoint and the trackers record it.
        learning_rate: of a step, from 0.
        data: rows of the plan, and what they come from.
        share: which rows this process takes.
        row_length: symbols of a row.
        flops_per_row: FLOPs of forward and backward over one row.
        raw_model: the model without what wraps it for training.
        save_model: writes the given whole tensors as a model folder, or as that of an adapter; without any, all that
            belongs into it beside them.
        origin: what it says of itself there.
        evaluate: bits per byte on validation by metric name; ``None`` where there is no validation split.
    """

    output: Path
    recorded: Mapping[str, Any]
    log: LogConfig
    checkpoint: CheckpointConfig
    evaluation: EvaluationConfig
    learning_rate: Callable[[int], float]
    world: World
    engine: Engine
    data: TrainingData
    share: RowShare
    row_length: int
    flops_per_row: float
    raw_model: nn.Module
    save_model: Callable[[Path, dict[str, torch.Tensor]], None]
    origin: ModelOrigin
    evaluate: Callable[[], dict[str, float]] | None

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.data.steps


@dataclass(frozen=True)
class _Pending:
    """A step whose numbers are still on the device."""

    step: int
    learning_rate: float
    counts: np.ndarray
    result: StepResult
    raw_gradient: dict[str, float]


class Loop:
    """One pass over the steps of a run, from a checkpoint's step or from 0.

    Attributes:
        step: finished optimizer steps.
        saved: the step of the last whole checkpoint; 0 where there is none yet.
        totals: what was seen so far.
        stopped_by: the signal that asked to stop; 0 while none has.
        validation: the last bits per byte on validation by metric name; empty while there are none.
    """

    def __init__(self, run: Run, step: int, totals: Totals):
        self.run = run
        self.step = step
        self.totals = totals
        self.metrics = MetricsLog(run.output)
        self.checkpoints = CheckpointFolder(run.output, run.checkpoint.keep)
        self.saved = step
        self.stopped_by = 0
        self.validation = self.metrics.last_evaluation() if step else {}
        self._pending: list[_Pending] = []
        self._since = time.perf_counter()
        self._bar = Progress(
            total=run.steps,
            initial=step,
            unit="step",
            desc="training",
            disable=not run.world.is_main,
            mininterval=0.5,
        )

    def to_the_end(self) -> bool:
        """Train up to the last step, or until a signal asks to stop; returns whether the end was reached."""
        run = self.run
        with StopRequest() as stop, self._bar:
            if self.step == 0 and run.evaluation.every and run.evaluate:
                self._log_evaluation(run.evaluate())
            self._since = time.perf_counter()
            for batches in fetch_ahead(run.data.dataset, run.share, range(self.step, run.steps)):
                counts, self.stopped_by = self._agree(batches, stop.number)
                self._train(batches, counts)
                self._due(self.stopped_by > 0)
                if self.stopped_by:
                    return self.step == run.steps
        return True

    def _agree(self, batches: StepBatches, stop: int) -> tuple[np.ndarray, int]:
        """Counts over all processes, shape ``(len(Count),)``, and the signal that asked any of them to stop, or 0."""
        mine = np.append(batches.counts.ravel(), float(stop))
        everyone = self.run.world.gather(mine)
        by_process = everyone[:, :-1].reshape(self.run.world.size, -1, len(Count))
        in_row_order = by_process.swapaxes(0, 1).reshape(-1, len(Count))
        return in_row_order.sum(axis=0), int(everyone[:, -1].max())

    def _train(self, batches: StepBatches, counts: np.ndarray) -> None:
        run = self.run
        rate = run.learning_rate(self.step)
        targets, every, raw_gradient = float(counts[Count.TARGETS]), run.log.raw_gradient_every, {}
        if every and (self.step + 1) % every == 0:
            raw_gradient = {"raw/grad_norm": raw_gradient_norm(run.engine, batches.batches, targets)}
        result = train_step(run.engine, batches.batches, self.step, targets, rate)
        self.step += 1
        self._pending.append(_Pending(self.step, rate, counts, result, raw_gradient))
        self._bar.update()

    def _due(self, stopping: bool) -> None:
        """Read metrics, evaluate and save, where this step is one for it."""
        run, last = self.run, stopping or self.step == self.run.steps
        evaluating = self._is_due(run.evaluation.every)
        saving = last or self.step % run.checkpoint.every == 0
        if evaluating or saving or self.step % run.log.every == 0:
            self._read_metrics()
        if evaluating and run.evaluate:
            self._log_evaluation(run.evaluate())
        if saving:
            self.save()
        if evaluating or saving:
            self._since = time.perf_counter()

    def _read_metrics(self) -> None:
        """Fetch what the steps since the last time left on the device, check it, log it."""
        run, pending = self.run, self._pending
        if not pending:
            return
        nats = torch.stack([entry.result.nats for entry in pending]).double().cpu().numpy()
        norms = torch.stack([entry.result.grad_norm for entry in pending]).double().cpu().tolist()
        # (processes, steps, micro-batches, rows, kinds) -> (steps, rows in their order, kinds)
        by_row = np.moveaxis(run.world.gather(nats), 0, 2).reshape(len(pending), -1, nats.shape[-1])
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        rows = run.share.order.rows_per_step
        symbols = rows * run.row_length
        text = sum(float(entry.counts[Count.RAW_BYTES] + entry.counts[Count.COMPRESSED_BYTES]) for entry in pending)
        speed = {
            "symbols_per_s": symbols * len(pending) / seconds,
            "bytes_per_s": text / seconds,
            "flops_per_s": run.flops_per_row * rows * len(pending) / seconds,
        }
        lines = []
        try:
            for entry, row_nats, norm in zip(pending, by_row, norms, strict=True):
                refuse_nan(entry.step, run.share.order.rows(entry.step - 1), row_nats, norm)
                self.totals.add(entry.counts, symbols, run.flops_per_row * rows)
                measured = {"learning_rate": entry.learning_rate, "grad_norm": norm, **self.totals.shares()}
                seen = {"targets": float(entry.counts[Count.TARGETS]), "symbols": self.totals.symbols}
                spent = {"flops": self.totals.flops, **speed}
                lines.append(
                    {"kind": "train", "step": entry.step, "phase": run.data.phases.at(entry.step - 1)}
                    | step_losses(row_nats, entry.counts)
                    | measured
                    | entry.raw_gradient
                    | seen
                    | spent
                )
        finally:
            self._log(lines)
            pending.clear()
        self._bar.set_postfix(loss=f"{lines[-1]['loss']:.3f}", refresh=False)

    def _log(self, lines: list[dict]) -> None:
        if not self.run.world.is_main:
            return
        self.metrics.append(lines)
        for line in lines:
            values = {name: value for name, value in line.items() if name not in ("kind", "step", "phase")}
            self.run.engine.accelerator.log(values, step=line["step"])

    def _is_due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self.step == self.run.steps)

    def _log_evaluation(self, bits: dict[str, float]) -> None:
        self.validation = bits
        self._log([{"kind": "evaluation", "step": self.step, **bits}])
        if self.run.world.is_main:
            views = {
                name.removeprefix("validation/").removesuffix("_bpb"): value
                for name, value in bits.items()
                if "/transfer/" not in name
            }
            told = ", ".join(f"{value:.4f} {view} bits per byte" for view, value in views.items())
            self._bar.write(f"step {self.step}: {told} on validation", file=sys.stderr)

    def save(self) -> None:
        """Write a checkpoint of the finished step."""
        run = self.run
        state = RunState(self.step, self.totals.as_dict(), dict(run.recorded), run.data.fingerprint)
        if is_sharded(run.raw_model):
            weights = stored_tensors(run.raw_model)  # first, for it shards what a forward pass has gathered
            optimizer = optimizer_tensors(run.raw_model, run.engine.optimizer)
            parts = {WEIGHTS_FOLDER: weights, OPTIMIZER_FOLDER: optimizer}
            self.checkpoints.save_shards(state, run.world, parts, lambda folder: self._save_model(folder, {}))
        else:
            self._save_whole(state)
        self.saved = self.step

    def _save_whole(self, state: RunState) -> None:
        """Every process holds everything: the first one writes it."""
        run, levers = self.run, self.run.engine.levers
        if run.world.is_main:
            weights = host_copies(run.raw_model.state_dict())
            optimizer = host_copies(optimizer_tensors(levers, run.engine.optimizer))
            beside = {name: host_copies(tensors) for name, tensors in levers.tensors().items()}
            self.checkpoints.save(state, optimizer, lambda folder: self._save_model(folder, weights), beside)
        run.world.wait()

    def _save_model(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        self.run.save_model(folder, weights)
        self.run.origin.write(folder, self.step, self.totals, self.validation)
