"""What drafting was worth: forward passes, symbols, and how often each place of a draft was right."""

from dataclasses import dataclass, field

from transformers.generation.utils import GenerateDecoderOnlyOutput


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
    """

    symbols: int = 0
    row_forwards: int = 0
    forwards: int = 0
    draft_forwards: int = 0
    offered: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    @property
    def symbols_per_forward(self) -> float:
        """New symbols for each forward pass over a row; 1 without drafts."""
        return self.symbols / max(1, self.row_forwards)

    @property
    def acceptance(self) -> list[float]:
        """For each place of a draft, how often it and all before it was right."""
        return [right / max(1, drafted) for right, drafted in zip(self.accepted, self.offered, strict=True)]

    def count(self, width: int, counts: list[int], matched: list[int]) -> None:
        """Add a step that verified drafts of ``width`` symbols.

        Args:
            width: 0 where nothing was drafted.
            counts: new symbols of each row.
            matched: drafted ones among them.
        """
        self.symbols += sum(counts)
        self.row_forwards += len(counts)
        self.forwards += 1
        missing = width - len(self.offered)
        self.offered += [0] * missing
        self.accepted += [0] * missing
        for place in range(width):
            self.offered[place] += len(counts)
            self.accepted[place] += sum(match > place for match in matched)


@dataclass
class DraftedOutput(GenerateDecoderOnlyOutput):
    """What ``generate(draft=..., return_dict_in_generate=True)`` returns.

    Attributes:
        drafts: how drafting went.
    """

    drafts: DraftReport | None = None
