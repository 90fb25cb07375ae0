"""Suffix rows in a run: the table of the data's compressor put into the model, and their share as steps go by."""

from dataclasses import dataclass

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.suffix_rows import SuffixRowsConfig, SuffixTable

from ..compressors import load_compressor
from .config import TrainConfig
from .lever_config import Ramp
from .source import TrainingData
from .spelled import symbol_bytes


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
    def of(cls, config: TrainConfig, model: ProxyByteForCausalLM, data: TrainingData) -> "SuffixSchedule | None":
        """For a run; ``None`` where it asks for none, and a model that has such rows keeps them as they are.

        Raises:
            ProxyByteError: if the data have no tokenizer whose tokens could end anywhere.
        """
        wanted = config.suffix_rows.mix
        if not wanted.value:
            return None
        if model.config.suffix_rows is None:
            if data.compressor is None:
                raise ProxyByteError(f"suffix_rows needs prepared data, but {config.data} has no compressor")
            try:
                spellings = symbol_bytes(load_compressor(data.compressor))
            except ProxyByteError as error:
                raise ProxyByteError(f"suffix_rows does not go with {config.data}: {error}") from error
            # A BPE's first tokens are its first merges, which are its most frequent ones.
            spellings = spellings[: config.suffix_rows.tokens]
            model.add_suffix_rows(SuffixTable.build(spellings), wanted.value)
        return cls(model.config.suffix_rows, wanted, data.steps)

    def before(self, step: int) -> None:
        """To be called before the forward pass of ``step``."""
        self.section.mix = self.mix.at(step, self.steps)
