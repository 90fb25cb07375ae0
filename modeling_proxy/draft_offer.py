"""How much of what was drafted a forward pass is to verify.

All rows of a pass are equally wide, and each place costs time in each row: little in one row, where a pass is mostly
the reading of weights, more in many. So the drafters say how sure they are, and a place is verified while the rows
gain enough by it together.
"""

from dataclasses import dataclass

_WORTH = 0.15
"""Symbols that a place of a draft must promise for each row. Measured for eight rows on a CPU
(docs/decoding.md)."""


@dataclass(frozen=True)
class Draft:
    """What one row might go on with.

    Attributes:
        symbols: in order.
        sure: for each, how likely it and all before it are right by the drafter's own account; never rises.
        repeated: whether it was copied from the text itself.
    """

    symbols: list[int]
    sure: list[float]
    repeated: bool = False

    def cut(self, width: int) -> "Draft":
        """Its first ``width`` symbols."""
        return Draft(self.symbols[:width], self.sure[:width], self.repeated)


def worth_verifying(drafts: list[Draft]) -> list[Draft]:
    """The drafts of all rows, cut where going on promises too little."""
    width = 0
    longest = max((len(draft.symbols) for draft in drafts), default=0)
    while width < longest:
        promised = sum(draft.sure[width] for draft in drafts if len(draft.sure) > width)
        if promised < _WORTH * len(drafts):
            break
        width += 1
    return [draft.cut(width) for draft in drafts]


def alike(drafts: list[Draft], pad: int) -> list[list[int]]:
    """Their symbols, those of shorter ones followed by ``pad``: what is verified there can be right by chance alone."""
    width = max((len(draft.symbols) for draft in drafts), default=0)
    return [draft.symbols + [pad] * (width - len(draft.symbols)) for draft in drafts]
