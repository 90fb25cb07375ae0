"""Where the phases of a run begin: counted in optimizer steps, whatever unit the run's length is counted in.

This is the only place that turns a share of a run into steps: the plan asks it for the mixture of views, the learning
rate for its warm-up and fall, the run for the steps that move embeddings alone.
"""

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """A part of a run, in order."""

    WARMUP = "warmup"
    STEADY = "steady"
    DECAY = "decay"


@dataclass(frozen=True)
class Phases:
    """The phases of a run; one of no step is none.

    Attributes:
        steps: optimizer steps of the run.
        steady: the first step (from 0) after warm-up.
        decay: the first step of the decay; ``steps`` where there is none.
    """

    steps: int
    steady: int
    decay: int

    @classmethod
    def of(cls, steps: int, warmup: float = 0.0, decay: float = 0.0) -> "Phases":
        """The phases of ``steps`` steps of which ``warmup`` and ``decay`` are the shares at both ends."""
        steady = round(warmup * steps)
        return cls(steps, steady, max(steady, steps - round(decay * steps)))

    def at(self, step: int) -> Phase:
        """The phase of a step (from 0)."""
        if step < self.steady:
            return Phase.WARMUP
        return Phase.STEADY if step < self.decay else Phase.DECAY

    def span(self, phase: Phase) -> tuple[int, int]:
        """First and last-plus-one step of a phase."""
        edges = (0, self.steady, self.decay, self.steps)
        place = tuple(Phase).index(phase)
        return edges[place], edges[place + 1]
