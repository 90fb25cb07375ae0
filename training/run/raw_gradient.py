"""How much of a step's gradient comes from raw bytes: its norm over the raw view's targets alone.

The loss is a sum over targets, so its gradient is that of the raw targets plus that of the others. Where raw text is
rare, the raw part may vanish beside the rest; this shows it. It costs a second forward and backward pass over the
step's rows, changes nothing that is learnt (dropout is seeded by row), and is off by default.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import nn

from proxybyte.symbols import IGNORE_INDEX, NUM_RAW_SYMBOLS, NUM_SPECIALS

from ..stream.mixed_view import PackedBatch
from .precision import autocast
from .step import Engine, seed_by_row
from .superposed import bag_inputs


def raw_targets_only(batch: PackedBatch) -> PackedBatch:
    """``batch`` with targets where a byte of raw text is to be predicted, and nowhere else."""
    raw = (batch.labels >= NUM_SPECIALS) & (batch.labels < NUM_RAW_SYMBOLS)
    return replace(batch, labels=batch.labels.masked_fill(~raw, IGNORE_INDEX))


def raw_gradient_norm(engine: Engine, batches: Sequence[PackedBatch], targets: float) -> float:
    """Norm of the raw targets' share of the gradient of one step, before clipping; every process must call this.

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
