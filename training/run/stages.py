"""Embeddings first: the steps at the start of a run that move embedding, head and the outermost layers alone."""

import re
from dataclasses import dataclass

from torch import nn

from proxybyte import ProxyByteForCausalLM

from ..stream.phases import Phases
from .adapters import is_row_weight
from .config import TrainableConfig

_LAYER = re.compile(r"\bmodel\.(?:layers|h)\.(\d+)\.")


@dataclass(frozen=True)
class RowsFirst:
    """Holds all other parameters still until a step.

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
