"""Levers of a run: what may make compressed text teach raw bytes more. All are off by default, and gone at export."""

from pydantic import Field

from ..settings import Section


class LeversConfig(Section):
    """What binds the two views together while a model is trained; nothing of it is left in the model."""

    spelled_rows: bool = Field(
        False, description="rows of compressed symbols are the sum of their bytes' rows by place, plus a residual"
    )
    spelled_places: int = Field(
        16, ge=1, le=4096, description="places of a byte in a symbol that are told apart; later ones are like the last"
    )
