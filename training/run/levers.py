"""What a run trains beside its model's own parameters, or in their place; nothing of it is left in the model."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from .cross_view import CROSS_VIEW_FILE, CrossView
from .spelled import SPELLED_FILE, SpelledRows


@dataclass(frozen=True)
class Levers:
    """The levers of a run that have weights of their own.

    Attributes:
        model: the bare model.
        spelled: rows that stand in the place of the model's.
        cross_view: further targets.
    """

    model: nn.Module
    spelled: SpelledRows | None = None
    cross_view: CrossView | None = None

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimizer moves, each once."""
        yield from (self.spelled or self.model).named_parameters()
        if self.cross_view is not None:
            yield from self.cross_view.named_parameters()

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """What a checkpoint holds beside the model, by file."""
        held = {SPELLED_FILE: self.spelled, CROSS_VIEW_FILE: self.cross_view}
        files = {name: part.tensors() for name, part in held.items() if part is not None}
        return {name: tensors for name, tensors in files.items() if tensors}

    def after_backward(self, accelerator: Accelerator) -> None:
        """To be called between the backward pass of a step and the update."""
        if self.spelled is not None:
            self.spelled.hand_on()
        if self.cross_view is not None:
            self.cross_view.average(accelerator)

    def after_update(self) -> None:
        """To be called after the optimizer's step."""
        if self.spelled is not None:
            self.spelled.write()
