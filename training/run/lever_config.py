"""Levers of a run: what may make compressed text teach raw bytes more. All are off by default, and gone at export."""

from typing import Self

from pydantic import Field, model_validator

from ..settings import Section


class Ramp(Section):
    """A value that is held for a share of a run's steps and then falls to nothing."""

    value: float = Field(0.0, ge=0, description="at the start")
    hold: float = Field(1.0, ge=0, le=1, description="share of steps after which it falls linearly")
    end: float = Field(
        1.0, ge=0, le=1, description="share of steps after which it is nothing; held for good if as hold"
    )

    @model_validator(mode="after")
    def _falls_after_it_is_held(self) -> Self:
        if self.end < self.hold:
            raise ValueError(f"end ({self.end:g}) is before hold ({self.hold:g}): give a later one")
        return self

    def at(self, step: int, steps: int) -> float:
        """The value of ``step``, from 0, of ``steps``."""
        progress = (step + 1) / steps
        if progress <= self.hold or self.hold == self.end == 1.0:
            return self.value
        return 0.0 if progress >= self.end else self.value * (self.end - progress) / (self.end - self.hold)


class CrossViewConfig(Section):
    """Each view's positions are asked for what the other one would show next (``training/run/cross_view.py``)."""

    symbols: Ramp = Field(Ramp(), description="weight of the next compressed symbol where one begins in raw text")
    first_bytes: Ramp = Field(Ramp(), description="weight of the first bytes of the next compressed symbol")
    count: int = Field(1, ge=1, le=64, description="how many first bytes, in any order")
    borders: Ramp = Field(Ramp(), description="weight of two rows that tell where in raw text a symbol begins")

    @property
    def speaks(self) -> bool:
        """Whether it has a signal at all."""
        return any(ramp.value for ramp in (self.symbols, self.first_bytes, self.borders))


class LeversConfig(Section):
    """What binds the two views together while a model is trained; nothing of it is left in the model."""

    spelled_rows: bool = Field(
        False, description="rows of compressed symbols are the sum of their bytes' rows by place, plus a residual"
    )
    spelled_places: int = Field(
        16, ge=1, le=4096, description="places of a byte in a symbol that are told apart; later ones are like the last"
    )
    cross_view: CrossViewConfig = CrossViewConfig()
