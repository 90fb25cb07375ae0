"""How much memory training takes, about, and how much there is."""

from dataclasses import dataclass

import torch

from proxybyte import ProxyByteConfig

from ..memory import free_host_memory, spell_size
from .config import OptimizerKind, Precision, TrainConfig

_MOMENTS = {OptimizerKind.ADAMW: 8, OptimizerKind.ADAMW_8BIT: 2}
"""Bytes of AdamW's two moments of a weight."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of one process.

    Attributes:
        state: weights, gradients and the optimizer's moments.
        pass_through: what a forward pass keeps for its backward pass, and the logits of one chunk with their gradient.
        fix: what to change where it is too much.
    """

    state: float
    pass_through: float
    fix: str

    @classmethod
    def of(
        cls, config: TrainConfig, shape: ProxyByteConfig, precision: Precision, weights: tuple[int, int], shards: int
    ) -> "MemoryUse":
        """About what a run takes.

        Args:
            config: the run.
            shape: of its model.
            precision: of the forward pass.
            weights: those that are trained, and those that are not.
            shards: processes that share the state among them.

        Per symbol a block of width D, with K keys and values and a gated MLP of F, keeps about 7 D + 2 K + 4 F
        numbers (inputs of norms and products, queries, keys, values, the gate's factors); attention's scores are not
        kept. Recomputed blocks keep D each, and one of them the rest.
        """
        backbone, symbols = shape.backbone_config, config.batch.rows_per_device * config.plan.row_length
        width = shape.hidden_size
        heads = shape.num_attention_heads
        keys = width * (getattr(backbone, "num_key_value_heads", None) or heads) // heads
        block = 7 * width + 2 * keys + 4 * (getattr(backbone, "intermediate_size", None) or 4 * width)
        layers = shape.num_hidden_layers
        kept = layers * width + block if config.compute.activation_checkpointing else layers * block
        item = 2 if precision is Precision.BFLOAT16 else 4
        logits = 2 * 4 * min(symbols, shape.loss_chunk_size) * shape.vocab_size
        trained, frozen = weights
        held = getattr(torch, config.trainable.adapter.frozen.value).itemsize
        return cls(
            state=(trained * (8 + _MOMENTS[config.optimizer.kind]) + frozen * held) / shards,
            pass_through=float(symbols * kept * item + logits),
            fix="lower batch.rows_per_device, or set compute.activation_checkpointing=true",
        )

    @property
    def total(self) -> float:
        """All of it."""
        return self.state + self.pass_through

    def sentence(self, free: int) -> str:
        """The parts, and what is free."""
        state, rest, there = (spell_size(size) for size in (self.state, self.pass_through, free))
        return (
            f"about {state} for weights, gradients and optimizer and {rest} for a forward pass, a process; {there} free"
        )


def free_memory(cpu: bool) -> int:
    """Bytes that are free where the run computes."""
    if cpu:
        return free_host_memory()
    return int(torch.get_device_module(torch.accelerator.current_accelerator()).mem_get_info()[0])
