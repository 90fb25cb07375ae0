"""Levers of a run: suffix rows and their share as steps go by, and what is trained beside a model's own parameters.

Of what is trained beside them, or in their place, nothing is left in the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.suffix_rows import SuffixRowsConfig, SuffixTable

from ..compressors import load_compressor
from .config import SuffixRowsTraining
from .cross_view import CROSS_VIEW_FILE, CrossView
from .data import TrainingData
from .lever_config import Ramp
from .spelled import SPELLED_FILE, SpelledRows, symbol_bytes


@dataclass(frozen=True)
class SuffixSchedule:
    """Sets the share of suffix rows before each step.

    Attributes:
        section: of the model's configuration.
        mix: the share.
        steps: of the run.
    """

    section: SuffixRowsConfig
    mix: Ramp
    steps: int

    @classmethod
    def of(cls, asked: SuffixRowsTraining, model: ProxyByteForCausalLM, data: TrainingData) -> "SuffixSchedule | None":
        """For a run; ``None`` where it asks for none, and a model that has such rows keeps them as they are.

        Raises:
            ProxyByteError: if the data have no tokenizer whose tokens could end anywhere.
        """
        if not asked.mix.value:
            return None
        if model.config.suffix_rows is None:
            if data.compressor is None:
                raise ProxyByteError(f"suffix_rows needs prepared data, but {data.path} has no compressor")
            if asked.hashed is not None:
                model.add_hashed_suffix_rows(asked.hashed, asked.mix.value)
            else:
                _add_suffix_rows(asked, model, data.path, data.compressor)
        return cls(model.config.suffix_rows, asked.mix, data.steps)

    def before(self, step: int) -> None:
        """To be called before the forward pass of ``step``."""
        self.section.mix = self.mix.at(step, self.steps)


def _add_suffix_rows(asked: SuffixRowsTraining, model: ProxyByteForCausalLM, data: Path, compressor: Path) -> None:
    """Put the rows of the compressor's tokens into the model.

    Raises:
        ProxyByteError: if it is no tokenizer whose tokens could end anywhere.
    """
    try:
        spellings = symbol_bytes(load_compressor(compressor))
    except ProxyByteError as error:
        raise ProxyByteError(f"suffix_rows does not go with {data}: {error}") from error
    # A BPE's first tokens are its first merges, which are its most frequent ones.
    model.add_suffix_rows(SuffixTable.build(spellings[: asked.tokens]), asked.mix.value)


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
