"""One optimizer step, and how much of its gradient comes from raw bytes."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from proxybyte.losses import mean_loss
from proxybyte.modeling_proxybyte import ProxyByteOutput
from proxybyte.symbols import IGNORE_INDEX, NUM_RAW_SYMBOLS, NUM_SPECIALS

from ..stream.mixed_view import PackedBatch
from .config import Precision
from .levers import Levers, SuffixSchedule
from .metrics import nats_by_row
from .optim import RowsFirst, set_learning_rate
from .precision import autocast
from .superposed import bag_inputs, bag_losses
from .teacher import Lessons


@dataclass(frozen=True)
class StepResult:
    """What a step leaves on the device; reading it would make the host wait, so the loop reads many at once.

    Attributes:
        nats: each row's summed losses, shape ``(micro_batches, rows_per_device, K)``, by :func:`nats_by_row`.
        grad_norm: gradient norm over all processes before clipping, no dimensions.
    """

    nats: torch.Tensor
    grad_norm: torch.Tensor


@dataclass(frozen=True)
class Engine:
    """What a step works on."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: Optimizer
    precision: Precision
    clip: float
    seed: int
    rows_first: RowsFirst
    levers: Levers
    lessons: Lessons | None = None
    suffixes: SuffixSchedule | None = None
    raw_rows_only: bool = False

    @property
    def moved(self) -> list[nn.Parameter]:
        """What the optimizer moves, each once."""
        return [parameter for _, parameter in self.levers.named_parameters()]


def train_step(
    engine: Engine, batches: Sequence[PackedBatch], step: int, targets: float, learning_rate: float
) -> StepResult:
    """Forward and backward over the micro-batches of ``step`` (from 0), then one update.

    The loss is the sum over targets divided by ``targets``, their number over all micro-batches *and processes*.
    Processes average gradients, hence the factor of their number.
    """
    accelerator, model = engine.accelerator, engine.model
    share = max(targets, 1.0) / accelerator.num_processes  # a step without a target has a loss of 0
    nats = []
    engine.rows_first.before(step)
    if engine.suffixes is not None:
        engine.suffixes.before(step)
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        seed_by_row(engine.seed, batch.rows[0], accelerator.device)
        moved = batch.to(accelerator.device)
        with nullcontext() if last else accelerator.no_sync(model):
            with autocast(engine.precision, accelerator.device):
                loss, output = _losses(engine, moved, step, share)
            # Not accelerator.backward: that divides by an accumulation of its own, which the environment can set.
            loss.backward()
        nats.append(nats_by_row(output, moved.labels))
    engine.rows_first.after(step)
    engine.levers.after_backward(accelerator)
    grad_norm = nn.utils.clip_grad_norm_(engine.moved, engine.clip)
    set_learning_rate(engine.optimizer, learning_rate)
    engine.optimizer.step()
    engine.optimizer.zero_grad(set_to_none=True)
    engine.levers.after_update()
    return StepResult(torch.stack(nats), getattr(grad_norm, "full_tensor", lambda: grad_norm)())


def _losses(engine: Engine, batch: PackedBatch, step: int, share: float) -> tuple[torch.Tensor, ProxyByteOutput]:
    """What to differentiate, and the model's output."""
    if batch.bags is not None:
        return bag_losses(engine.model, batch, share, engine.raw_rows_only)
    inputs = {**batch.model_inputs(), "num_items_in_batch": share, "raw_targets_only": engine.raw_rows_only}
    lesson = engine.lessons.prepare(batch.input_ids, step) if engine.lessons else None
    cross_view = engine.levers.cross_view
    crossing = cross_view is not None and cross_view.speaks(step)
    output = engine.model(**inputs, **(lesson.asks if lesson else {}), return_hidden=crossing)
    loss = output.loss
    if lesson is not None:
        loss = loss + mean_loss(lesson.loss(output), share)
    if cross_view is not None and crossing:
        further = cross_view.loss(engine.model, batch.input_ids, output.last_hidden_state, step)
        loss = loss + mean_loss(further, share)
    return loss, output


def seed_by_row(seed: int, row: int, device: torch.device) -> None:
    """Seed dropout by the micro-batch's first row: a run needs no saved generator, and any split of rows agrees.

    Not ``torch.manual_seed``: for each kind of accelerator that is not there it queues a stack trace, for ever.
    """
    mixed = int(np.random.SeedSequence([seed, row]).generate_state(1)[0])
    torch.default_generator.manual_seed(mixed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(mixed)


def raw_targets_only(batch: PackedBatch) -> PackedBatch:
    """``batch`` with targets where a byte of raw text is to be predicted, and nowhere else."""
    raw = (batch.labels >= NUM_SPECIALS) & (batch.labels < NUM_RAW_SYMBOLS)
    return replace(batch, labels=batch.labels.masked_fill(~raw, IGNORE_INDEX))


def raw_gradient_norm(engine: Engine, batches: Sequence[PackedBatch], targets: float) -> float:
    """Norm of the raw targets' share of the gradient of one step, before clipping; every process must call this.

    The loss is a sum over targets, so its gradient is that of the raw targets plus that of the others. Where raw text
    is rare, the raw part may vanish beside the rest; this shows it. It costs a second forward and backward pass over
    the step's rows, changes nothing that is learnt (dropout is seeded by row), and is off by default.

    Args:
        engine: of the run; its gradients are empty before and after.
        batches: this process's micro-batches of the step.
        targets: targets of all views over all processes, which the step's loss is divided by.
    """
    accelerator, model = engine.accelerator, engine.model
    share = targets / accelerator.num_processes
    for index, batch in enumerate(batches):
        seed_by_row(engine.seed, batch.rows[0], accelerator.device)
        moved = raw_targets_only(batch).to(accelerator.device)
        with nullcontext() if index == len(batches) - 1 else accelerator.no_sync(model):
            with autocast(engine.precision, accelerator.device):
                inputs = moved.model_inputs() if moved.bags is None else bag_inputs(model, moved)
                output = model(**inputs, num_items_in_batch=share)
            output.loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm: torch.Tensor = nn.utils.get_total_norm(gradients)
    model.zero_grad(set_to_none=True)
    return float(getattr(norm, "full_tensor", lambda: norm)())
