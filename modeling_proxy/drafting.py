"""What a drafter is: it says what a text might go on with, and the model verifies that (:mod:`.verification`).

A :class:`Drafter` is handed to ``generate(draft=...)``; one call's work is its :class:`Drafting`. A draft may come from
anywhere, as long as it does not know what will be drawn: a fixed function of the text so far will do.

All rows of a pass are equally wide, and each place costs time in each row: little in one row, where a pass is mostly
the reading of weights, more in many. So drafters say how sure they are, and a place is verified while the rows gain
enough by it together.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch.nn import functional as F
from transformers.generation.utils import GenerateDecoderOnlyOutput

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


class Texts:
    """Prompts and what came after them, in the columns that one-byte generation would use.

    New symbols are numbers of Python until somebody asks for a tensor: a step handles a few of them, and each operation
    on a tensor costs as much as a hundred on numbers.

    Args:
        input_ids: prompts, shape ``(B, T)``.
        pad: what follows a row that has ended.

    Attributes:
        prompt: columns of the prompts, padding included.
        new: symbols of each row behind its prompt.
        active: rows that are being written, in the order of the passes; their count is called ``A``.
        pad: what follows a row that has ended.
        device: of the prompts.
    """

    def __init__(self, input_ids: torch.Tensor, pad: int) -> None:
        batch, self.prompt = input_ids.shape
        self.pad, self.device = pad, input_ids.device
        self.new: list[list[int]] = [[] for _ in range(batch)]
        self.active = list(range(batch))
        self._ids = input_ids
        self._written = [0] * batch

    @property
    def lengths(self) -> list[int]:
        """Columns of each row so far."""
        return [self.prompt + len(symbols) for symbols in self.new]

    @property
    def active_lengths(self) -> list[int]:
        """Columns of each active row."""
        return [self.prompt + len(self.new[row]) for row in self.active]

    def last(self) -> list[int]:
        """The last symbol of each active row, which is a new one."""
        return [self.new[row][-1] for row in self.active]

    def symbols(self, row: int, start: int) -> list[int]:
        """Columns of a row from ``start`` on."""
        if start >= self.prompt:
            return self.new[row][start - self.prompt :]
        return self._ids[row, start : self.prompt].tolist() + self.new[row]

    def ids(self, ahead: list[list[int]] | None = None) -> torch.Tensor:
        """All rows as a tensor, shape ``(B, C)``; what is in it beyond a row's length means nothing.

        Args:
            ahead: symbols to put behind the active rows, as many for each.
        """
        longest = max(self.lengths) + (len(ahead[0]) if ahead else 0)
        if (missing := longest - self._ids.shape[1]) > 0:
            self._ids = F.pad(self._ids, (0, max(missing, self._ids.shape[1] // 2, 64)), value=self.pad)
        for row, symbols in enumerate(self.new):
            self._write(row, self._written[row], symbols[self._written[row] :])
            self._written[row] = len(symbols)
        for row, symbols in zip(self.active, ahead or [[]] * len(self.active), strict=True):
            self._write(row, len(self.new[row]), symbols)
        return self._ids

    def _write(self, row: int, place: int, symbols: list[int]) -> None:
        if symbols:
            start = self.prompt + place
            self._ids[row, start : start + len(symbols)] = torch.tensor(symbols, device=self.device)

    def sequences(self) -> torch.Tensor:
        """All rows, padded at their ends to the longest, shape ``(B, C)``."""
        width = max(map(len, self.new))
        new = [symbols + [self.pad] * (width - len(symbols)) for symbols in self.new]
        behind = torch.tensor(new, dtype=self._ids.dtype, device=self.device).view(len(new), width)
        return torch.cat([self._ids[:, : self.prompt], behind], dim=1)


class Drafting(Protocol):
    """A drafter at work in one call of ``generate``.

    Attributes:
        most: most symbols of a draft.
        forwards: forward passes of its own so far.
        takes_rows: whether rows may begin while others go on: from :meth:`see` on they stand behind those before.
    """

    most: int
    forwards: int
    takes_rows: bool

    def see(self, output: Any, at: list[int]) -> None:
        """Take what a forward pass says at position ``at`` of each active row."""

    def keep(self, places: list[int]) -> None:
        """Drop all active rows but those at ``places``."""

    def propose(self, texts: Texts, most: int) -> list[Draft]:
        """A draft for each active row, of ``most`` symbols or fewer."""
        ...


@runtime_checkable
class Drafter(Protocol):
    """Who drafts, of any model and for any number of calls; ``draft=`` of ``generate``.

    By its method rather than its class: a model from the Hub brings another copy of that.
    """

    def open(self, model: Any, most: int | None) -> Drafting:
        """Begin to draft for one call.

        Args:
            model: a ``ProxyByteForCausalLM``.
            most: most symbols of a draft; as many as the drafter thinks best if absent.

        Raises:
            ProxyByteError: if the model has nothing to draft with.
        """
        ...


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


@dataclass(frozen=True)
class Verified:
    """What a step brings to each active row.

    Attributes:
        counts: symbols that stay, at least 1.
        matched: drafted ones among them.
        ended: whether the row ends with them.
    """

    counts: list[int]
    matched: list[int]
    ended: list[bool]


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
