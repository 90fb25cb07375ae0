"""The optimizer and the learning rate, which is a function of the step and has no state."""

import math

import torch
from torch import nn

from .config import Decay, LearningRateConfig, OptimizerConfig


def make_adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of ``model``; weight decay on matrices, none on norms and biases."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every group the learning rate ``value``."""
    for group in optimizer.param_groups:
        group["lr"] = value


def learning_rate(config: LearningRateConfig, peak: float, step: int, total: int) -> float:
    """Learning rate of step ``step`` (0 to ``total - 1``).

    With ``w = round(warmup * total)`` steps of warm-up it is ``peak * (step + 1) / w`` up to step ``w - 1``, then

    * cosine: ``peak * (final + (1 - final) * (1 + cos(pi * t)) / 2)``, ``t`` from 0 at step ``w`` to 1 at the last;
    * wsd: ``peak``, and over the last ``d = round(decay * total)`` steps linearly down to ``peak * final``;
    * constant: ``peak``.
    """
    warmup = round(config.warmup * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.shape is Decay.COSINE:
        progress = (step - warmup) / max(1, total - 1 - warmup)
        return peak * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress)))
    decay = min(round(config.decay * total), total - warmup)
    left = total - 1 - step
    if config.shape is Decay.WSD and left < decay:
        return peak * (config.final + (1 - config.final) * left / decay)
    return peak
