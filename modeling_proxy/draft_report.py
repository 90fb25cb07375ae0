"""What drafting was worth: forward passes, symbols, and how often each place of a draft was right."""

from dataclasses import dataclass, field

from transformers.generation.utils import GenerateDecoderOnlyOutput

from .draft_offer import Draft
from .draft_stopping import Verified


@dataclass(frozen=True)
class DraftedStep:
    """One forward pass of one row.

    Attributes:
        symbols: what was drafted, none where nothing was.
        accepted: how many of them, from the first, were right.
        kept: new symbols: the accepted ones and the model's own next, unless the text ended before.
        repeated: whether the draft was copied from the text itself.
    """

    symbols: tuple[int, ...]
    accepted: int
    kept: int
    repeated: bool


@dataclass
class DraftReport:
    """Counts over all rows of one call of ``generate``.

    Attributes:
        symbols: new symbols.
        row_forwards: forward passes times the rows that took part, the prompts' own included: as many as one-byte
            generation of the same rows would take for ``row_forwards`` symbols.
        forwards: forward passes over raw text.
        draft_forwards: forward passes that only drafted.
        offered: how often something was drafted at each place of a draft.
        accepted: how often that and all before it was right.
        repeated: drafted symbols that were right and copied from the text itself.
        steps: every step in order, of the rows that took part one after the other.
    """

    symbols: int = 0
    row_forwards: int = 0
    forwards: int = 0
    draft_forwards: int = 0
    offered: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    repeated: int = 0
    steps: list[DraftedStep] = field(default_factory=list)

    @property
    def symbols_per_forward(self) -> float:
        """New symbols for each forward pass over a row; 1 without drafts."""
        return self.symbols / max(1, self.row_forwards)

    @property
    def acceptance(self) -> list[float]:
        """For each place of a draft, how often it and all before it was right."""
        return [right / max(1, drafted) for right, drafted in zip(self.accepted, self.offered, strict=True)]

    def count(self, drafts: list[Draft], step: Verified) -> None:
        """Add a step that verified ``drafts``, one a row."""
        self.symbols += sum(step.counts)
        self.row_forwards += len(step.counts)
        self.forwards += 1
        for draft, matched, kept in zip(drafts, step.matched, step.counts, strict=True):
            missing = [0] * (len(draft.symbols) - len(self.offered))
            self.offered += missing
            self.accepted += missing
            # Behind a short draft, padding may have been right by chance.
            right = min(matched, len(draft.symbols))
            self.repeated += right if draft.repeated else 0
            self.steps.append(DraftedStep(tuple(draft.symbols), right, kept, draft.repeated))
            for place in range(len(draft.symbols)):
                self.offered[place] += 1
                self.accepted[place] += place < right


@dataclass
class DraftedOutput(GenerateDecoderOnlyOutput):
    """What ``generate(draft=..., return_dict_in_generate=True)`` returns.

    Attributes:
        drafts: how drafting went.
    """

    drafts: DraftReport | None = None
