"""What moves, and how fast: the optimizer, the learning rate, and the steps that move embedding and head alone.

The learning rate is a function of the step and has no state.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import nn

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError

from ..stream.schedule import Phase, Phases
from .adapters import is_row_weight
from .config import Decay, LearningRateConfig, OptimizerConfig, OptimizerKind, TrainableConfig

PLACES = ".places"
"""Ends the name of factors that start at one, or minus one: decay would move them to nothing."""


class HasParameters(Protocol):
    """A module, or what stands for one before the optimizer."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its parameters by name, each once."""
        ...


def check_optimizer(config: OptimizerConfig) -> None:
    """Refuse an optimizer whose package is absent.

    Raises:
        ProxyByteError: if it is to keep its state in 8 bits and bitsandbytes is not installed.
    """
    if config.kind is OptimizerKind.ADAMW_8BIT and find_spec("bitsandbytes") is None:
        raise ProxyByteError("optimizer.kind=adamw_8bit needs the package bitsandbytes: pip install bitsandbytes")


def make_adamw(model: HasParameters, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters of ``model``; weight decay on matrices, none on norms, biases and places.

    Raises:
        ProxyByteError: if it is to keep its state in 8 bits and bitsandbytes is not installed.
    """
    check_optimizer(config)
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 and not name.endswith(PLACES) else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    settings: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    if config.kind is OptimizerKind.ADAMW_8BIT:
        return _eight_bit_adamw(groups, settings)
    return torch.optim.AdamW(groups, fused=True, **settings)


def _eight_bit_adamw(groups: list[dict[str, Any]], settings: dict[str, Any]) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(groups, **settings)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every group the learning rate ``value``."""
    for group in optimizer.param_groups:
        group["lr"] = value


def learning_rate(config: LearningRateConfig, peak: float, step: int, total: int, border: int = 0) -> float:
    """Learning rate of step ``step`` (0 to ``total - 1``).

    With ``rewarm``, the steps before ``border`` and those from it on each have all of the shape, the second with
    ``peak * rewarm`` in the place of ``peak``.

    With ``w`` steps of warm-up, the share ``warmup`` of all (:class:`Phases`), it is ``peak * (step + 1) / w`` up to
    step ``w - 1``, then

    * cosine: ``peak * (final + (1 - final) * (1 + cos(pi * t)) / 2)``, ``t`` from 0 at step ``w`` to 1 at the last;
    * wsd: ``peak``, and over the last steps, the share ``decay`` of all, linearly down to ``peak * final``;
    * constant: ``peak``.
    """
    if config.rewarm and 0 < border < total:
        part = config.model_copy(update={"rewarm": 0.0})
        if step < border:
            return learning_rate(part, peak, step, border)
        return learning_rate(part, peak * config.rewarm, step - border, total - border)
    phases = Phases.of(total, config.warmup, config.decay if config.shape is Decay.WSD else 0.0)
    match phases.at(step):
        case Phase.WARMUP:
            return peak * (step + 1) / phases.steady
        case Phase.DECAY:
            return peak * (config.final + (1 - config.final) * (total - 1 - step) / (total - phases.decay))
    if config.shape is Decay.COSINE:
        progress = (step - phases.steady) / max(1, total - 1 - phases.steady)
        return peak * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress)))
    return peak


_LAYER = re.compile(r"\bmodel\.(?:layers|h)\.(\d+)\.")


@dataclass(frozen=True)
class RowsFirst:
    """Embeddings first: holds all but embedding, head and the outermost layers still until a step.

    Attributes:
        others: trainable parameters that are no rows of embedding or head, and in none of the layers that move too.
        names: theirs.
        until: the first step (from 0) that moves them too.
        alone: whether one process trains; only then may their gradients be left out, for replicas wait for each.
    """

    others: tuple[nn.Parameter, ...]
    names: frozenset[str]
    until: int
    alone: bool

    @classmethod
    def of(cls, model: ProxyByteForCausalLM, config: TrainableConfig, steps: int, alone: bool) -> "RowsFirst":
        """For a run of ``steps``."""
        moving = range(config.first_layers), range(model.config.num_hidden_layers - config.last_layers, 1 << 30)
        others = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and not is_row_weight(model, name) and not _is_in(name, moving)
        }
        return cls(tuple(others.values()), frozenset(others), Phases.of(steps, config.embeddings_only).steady, alone)

    def before(self, step: int) -> None:
        """To be called before the forward pass of ``step``."""
        if self.alone:
            for parameter in self.others:
                parameter.requires_grad_(step >= self.until)

    def after(self, step: int) -> None:
        """To be called between the backward pass of ``step`` and the update: what is held gets no gradient."""
        if step < self.until:
            for parameter in self.others:
                parameter.grad = None


def _is_in(name: str, layers: tuple[range, range]) -> bool:
    """Whether a parameter belongs to one of the layers."""
    found = _LAYER.search(name)
    return found is not None and any(int(found[1]) in part for part in layers)
