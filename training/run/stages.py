"""Embeddings first: the steps at the start of a run that move embedding and head alone."""

from dataclasses import dataclass

from torch import nn

from proxybyte import ProxyByteForCausalLM

from ..stream.phases import Phases
from .adapters import is_row_weight


@dataclass(frozen=True)
class RowsFirst:
    """Holds all other parameters still until a step.

    Attributes:
        others: trainable parameters that are no rows of embedding or head.
        names: theirs.
        until: the first step (from 0) that moves them too.
        alone: whether one process trains; only then may their gradients be left out, for replicas wait for each.
    """

    others: tuple[nn.Parameter, ...]
    names: frozenset[str]
    until: int
    alone: bool

    @classmethod
    def of(cls, model: ProxyByteForCausalLM, share: float, steps: int, alone: bool) -> "RowsFirst":
        """For the first ``share`` of a run of ``steps``."""
        others = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and not is_row_weight(model, name)
        }
        return cls(tuple(others.values()), frozenset(others), Phases.of(steps, share).steady, alone)

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
