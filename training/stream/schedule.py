"""How much of the stream is compressed, and in which form, as a run goes on (paper, section on training mixtures).

A schedule is up to three phases in order: *warm-up* (the compressed share rises, documents may come as pairs),
*steady*, and *decay* (the share moves to a final value, for example 0: raw bytes only). Their lengths are shares of
the run's optimizer steps; at which step each begins is said by :class:`Phases`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from ..settings import Section


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


class Pairing(StrEnum):
    """Whether some documents appear in both views, and how the two views stand to each other."""

    NONE = "none"
    RAW_FIRST = "raw_first"
    """Translation pair: raw view, then compressed view, in one document (the second attends to the first)."""
    COMPRESSED_FIRST = "compressed_first"
    """Translation pair the other way round."""
    RANDOM = "random"
    """Translation pairs, half of them in each order."""
    PARALLEL = "parallel"
    """Both views, but as two documents that cannot attend to each other."""


class Fall(StrEnum):
    """How the compressed share moves in the decay phase."""

    LINEAR = "linear"
    STEP = "step"
    """At once, where the phase begins: compressed first, then raw."""


@dataclass(frozen=True)
class Mixture:
    """The mixture at one point of progress.

    Attributes:
        rate: share of views that are compressed, in ``0 .. 1`` (of views, not of bytes or symbols).
        pairing: how twins are placed.
        hand_off: share of the documents that would be compressed alone and start compressed but end raw instead.
        switch: share of them that switch between the views instead.
        switches: how often such a document switches, on average.
    """

    rate: float
    pairing: Pairing
    hand_off: float
    switch: float = 0.0
    switches: float = 0.0

    @property
    def pair_share(self) -> float:
        """Share of documents that come as a pair.

        Every view of the rarer kind has its twin, so that compressed : raw stays rate : 1 - rate. For
        ``rate >= 1/2`` a share ``(1 - rate) / rate`` of documents are pairs and the rest are compressed alone;
        below one half it is mirrored.
        """
        if self.pairing is Pairing.NONE:
            return 0.0
        common = max(self.rate, 1.0 - self.rate)
        return (1.0 - common) / common

    @property
    def compressed_alone_share(self) -> float:
        """Share of documents that appear in the compressed view only (hand-offs and switched ones among them)."""
        if self.pairing is Pairing.NONE:
            return self.rate
        return 1.0 - self.pair_share if self.rate >= 0.5 else 0.0


class ScheduleConfig(Section):
    """Rate and mode over a run. The defaults are the paper's best setting: pairs during warm-up only.

    ``rate=0`` with ``warmup=0`` trains on raw bytes only, ``rate=1`` with ``warmup=0`` on compressed views only.
    """

    rate: float = Field(0.9, ge=0, le=1, description="compressed share of views in the steady phase")
    pairing: Pairing = Field(Pairing.NONE, description="pairs in the steady phase")
    hand_off: float = Field(0.0, ge=0, le=1, description="share of compressed documents that end raw")
    switch: float = Field(0.0, ge=0, le=1, description="share of compressed documents that switch between the views")
    switches: float = Field(
        3.0, ge=0, le=15, description="how often such a document switches, on average, at borders of symbols"
    )
    warmup_switches: float = Field(12.0, ge=0, le=15, description="the same at the start; goes linearly to switches")
    warmup: float = Field(0.2, ge=0, le=1, description="share of the run spent warming up")
    warmup_rate: float = Field(0.4, ge=0, le=1, description="compressed share at the start; rises linearly to rate")
    warmup_pairing: Pairing = Field(Pairing.RANDOM, description="pairs during warm-up")
    decay: float = Field(0.0, ge=0, le=1, description="share of the run, at its end, spent moving to decay_rate")
    decay_rate: float = Field(0.0, ge=0, le=1, description="compressed share at the end of the decay phase")
    decay_shape: Fall = Field(Fall.LINEAR, description="whether the share moves linearly or in one step")
    decay_pairing: Pairing | None = Field(None, description="pairs in the decay phase; as in the steady one if absent")

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.warmup + self.decay > 1.0 + 1e-9:
            raise ValueError(f"warmup + decay is {self.warmup + self.decay:g}: the phases of a run add up to at most 1")
        if self.hand_off + self.switch > 1.0 + 1e-9:
            raise ValueError(f"hand_off + switch is {self.hand_off + self.switch:g}: they are shares of the same whole")
        return self

    def mixture(self, phase: Phase, done: float) -> Mixture:
        """The mixture in ``phase`` when ``done`` of it, in ``0 .. 1``, is over."""
        rate, pairing, switches = self.rate, self.pairing, self.switches
        if phase is Phase.WARMUP:
            switches = _between(self.warmup_switches, self.switches, done)
            rate, pairing = _between(self.warmup_rate, self.rate, done), self.warmup_pairing
        elif phase is Phase.DECAY:
            rate = self.decay_rate if self.decay_shape is Fall.STEP else _between(self.rate, self.decay_rate, done)
            pairing = self.pairing if self.decay_pairing is None else self.decay_pairing
        return Mixture(rate, pairing, self.hand_off, self.switch, switches if self.switch else 0.0)

    def at(self, progress: float) -> Mixture:
        """The mixture when ``progress`` of the steps, in ``0 .. 1``, are over."""
        if progress < self.warmup:
            return self.mixture(Phase.WARMUP, progress / self.warmup)
        if self.decay > 0 and progress >= 1.0 - self.decay:
            return self.mixture(Phase.DECAY, 1.0 - (1.0 - progress) / self.decay)
        return self.mixture(Phase.STEADY, 0.0)

    @property
    def shows_compressed(self) -> bool:
        """Whether any part of a run shows a compressed view."""
        phases = ((self.warmup, self.warmup_rate), (1.0, self.rate), (self.decay, self.decay_rate))
        return any(length > 0 and rate > 0 for length, rate in phases)


def _between(first: float, last: float, done: float) -> float:
    return first + (last - first) * min(max(done, 0.0), 1.0)
