"""Which drafters there are, and how a caller of ``generate`` asks for one.

*Heads* draft with the model's own multi-byte heads, which the forward pass that verifies also computes. *Repeats* draft
what followed the last time that the text ended as it does now: code and prose say names, indentation and whole lines
again (prompt lookup; Saxena 2023), and a look into a table costs nothing. Others plug in from outside as a
:class:`.drafting.Drafter`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.configuration_utils import GenerationMode

from .drafting import Draft, Drafter, Drafting, Texts
from .errors import ProxyByteError
from .verification import is_stateless

MATCH = 5
"""Symbols that must have occurred before."""
_MOST = 15
_PRIOR_RIGHT, _PRIOR_DRAFTED, _MEMORY = 8.0, 10.0, 0.95
_HEADS = "heads"
_UNSUPPORTED = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


@dataclass(frozen=True)
class HeadsDrafter:
    """The model's multi-byte heads; ``draft="heads"``."""

    def open(self, model: Any, most: int | None) -> Drafting:
        """As :meth:`.drafting.Drafter.open`; refuses a model without such heads."""
        return HeadsDrafting(model, most)


@dataclass(frozen=True)
class RepeatsDrafter:
    """What the text says again; ``draft_repeats=True``.

    Attributes:
        other: drafts where nothing repeats; nobody if absent.
    """

    other: Drafter | None = None

    def open(self, model: Any, most: int | None) -> Drafting:
        """As :meth:`.drafting.Drafter.open`."""
        return RepeatsDrafting(None if self.other is None else self.other.open(model, most), most)


class HeadsDrafting:
    """Each head's likeliest symbol.

    If heads were right independently of each other, a draft would be right with the product of their probabilities.
    They are right together: its square root is nearer (docs/decoding.md).

    After position ``t`` of a text head 0 gives symbol ``t + 1`` and head ``h`` drafts ``t + 1 + h``: what the last
    accepted position's heads say begins right behind the symbol that its head 0 has just given.

    Args:
        model: a ``ProxyByteForCausalLM``.
        most: most symbols to draft.

    Raises:
        ProxyByteError: if the model has no heads to draft with.
    """

    takes_rows = True

    def __init__(self, model: Any, most: int | None) -> None:
        heads = model.config.num_pred_heads - 1 + model.config.num_raw_pred_heads
        if not heads:
            raise ProxyByteError("draft='heads' needs a model with multi-byte heads: this one has none")
        self._model = model
        self.most = heads if most is None else min(most, heads)
        self.forwards = 0
        self._drafts: list[Draft] = []

    def see(self, output: Any, at: list[int]) -> None:
        """Take what a forward pass says at position ``at`` of each active row."""
        # For one position of each row, and so only now that it is known.
        hidden = output.last_hidden_state[list(range(len(at))), at][:, None]
        logits = self._model.head_logits(hidden)[:, 0, : self.most].to(torch.float32)
        likely, symbols = logits.softmax(dim=-1).max(dim=-1)
        sure = likely.cumprod(dim=-1).sqrt().tolist()
        self._drafts = [Draft(*both) for both in zip(symbols.tolist(), sure, strict=True)]

    def keep(self, places: list[int]) -> None:
        """Drop all active rows but those at ``places``."""
        self._drafts = [self._drafts[place] for place in places]

    def propose(self, texts: Texts, most: int) -> list[Draft]:
        """A draft for each active row, of ``most`` symbols or fewer."""
        return [draft.cut(most) for draft in self._drafts]


class Repeats:
    """One text, and where its last symbols occurred before.

    Each new symbol costs one look into a table, whatever the length of the text.

    Attributes:
        symbols: the text.
    """

    def __init__(self) -> None:
        self.symbols: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        self._before: int | None = None

    def extend(self, symbols: list[int]) -> None:
        """Let the text go on with ``symbols``."""
        for symbol in symbols:
            self.symbols.append(symbol)
            end = tuple(self.symbols[-MATCH:])
            self._before = self._behind.get(end)
            self._behind[end] = len(self.symbols)

    def draft(self, most: int) -> list[int]:
        """The ``most`` symbols behind the latest earlier place where the last ``MATCH`` symbols end; none without one.

        Where fewer follow, the text is taken to go on in a circle, as it has begun to.
        """
        if self._before is None:
            return []
        period = len(self.symbols) - self._before
        return [self.symbols[self._before + place % period] for place in range(most)]


class RepeatsDrafting:
    """Drafts from repeats, and has another draft where there is none.

    How sure a repeat is, is what repeats have been worth in these texts so far.

    Args:
        other: drafts for rows that do not repeat; nobody if absent.
        most: most symbols of a draft.
    """

    def __init__(self, other: Drafting | None, most: int | None) -> None:
        self._other = other
        self.takes_rows = other is None or getattr(other, "takes_rows", False)
        self._copied = _MOST if most is None else most
        self.most = self._copied if other is None else max(self._copied, other.most)
        self.forwards = 0
        self._rows: list[Repeats] = []
        self._drafts: list[list[int]] = []
        self._right, self._drafted = _PRIOR_RIGHT, _PRIOR_DRAFTED

    def see(self, output: Any, at: list[int]) -> None:
        """Take what a forward pass says at position ``at`` of each active row."""
        if self._other is not None:
            self._other.see(output, at)

    def keep(self, places: list[int]) -> None:
        """Drop all active rows but those at ``places``."""
        self._begin(max(places, default=-1) + 1)
        self._rows = [self._rows[place] for place in places]
        self._drafts = [self._drafts[place] for place in places]
        if self._other is not None:
            self._other.keep(places)

    def propose(self, texts: Texts, most: int) -> list[Draft]:
        """A draft for each active row, of ``most`` symbols or fewer."""
        self._begin(len(texts.active))
        for row, number, draft in zip(self._rows, texts.active, self._drafts, strict=True):
            new = texts.symbols(number, len(row.symbols))
            self._learn(draft, new)
            row.extend(new)
        self._drafts = [row.draft(min(most, self._copied)) for row in self._rows]
        share = self._right / self._drafted
        drafts = [Draft(d, [share ** (place + 1) for place in range(len(d))], repeated=True) for d in self._drafts]
        if self._other is not None and not all(self._drafts):
            others = self._other.propose(texts, min(most, self._other.most))
            self.forwards = self._other.forwards
            drafts = [one if one.symbols else other for one, other in zip(drafts, others, strict=True)]
        return drafts

    def _begin(self, rows: int) -> None:
        """Know of as many rows; those that are new come last."""
        while len(self._rows) < rows:
            self._rows.append(Repeats())
            self._drafts.append([])

    def _learn(self, draft: list[int], new: list[int]) -> None:
        """Count how many of a draft's symbols came, each behind right ones alone; what was long ago counts less."""
        tried = min(len(draft), len(new))
        right = next((place for place in range(tried) if draft[place] != new[place]), tried)
        if tried:
            self._right = _MEMORY * (self._right + right)
            self._drafted = _MEMORY * (self._drafted + min(right + 1, tried))


def _whole(config: GenerationConfig, name: str) -> int | None:
    value: int | None = getattr(config, name, None)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ProxyByteError(f"{name} is {value!r}: give a whole number of at least 1, or leave it out")
    return value


@dataclass(frozen=True)
class DraftRequest:
    """Drafting as a caller asked for it, by argument of ``generate`` or in its generation configuration.

    Attributes:
        drafter: who drafts.
        name: how it was asked for.
        bytes: most bytes drafted at once; as many as the drafter thinks best where absent.
        rows: most rows of the batch in one pass; all where absent.
    """

    drafter: Drafter
    name: str
    bytes: int | None = None
    rows: int | None = None

    @classmethod
    def of(cls, config: GenerationConfig) -> "DraftRequest | None":
        """What ``draft``, ``draft_repeats``, ``draft_bytes`` and ``draft_rows`` of ``config`` ask for.

        Raises:
            ProxyByteError: if they make no sense.
        """
        given = getattr(config, "draft", None)
        count, rows = (_whole(config, name) for name in ("draft_bytes", "draft_rows"))
        repeats = getattr(config, "draft_repeats", None) or False
        if not isinstance(repeats, bool):
            raise ProxyByteError(f"draft_repeats is {repeats!r}: give True, or leave it out")
        drafter = HeadsDrafter() if given == _HEADS else given
        if drafter is not None and not isinstance(drafter, Drafter):
            raise ProxyByteError(
                f"draft is {given!r}: give {_HEADS!r}, a drafter such as CrossViewDrafter of proxybyte.training, or "
                "leave it out"
            )
        name = "draft_repeats=True"
        if drafter is not None:
            name = f"draft={given!r}" if given == _HEADS else f"draft={type(given).__name__}"
        if repeats:
            drafter = RepeatsDrafter(drafter)
        return None if drafter is None else cls(drafter, name, count, rows)

    def open(self, model: Any) -> Drafting:
        """Begin to draft for ``model``.

        Raises:
            ProxyByteError: if the model has nothing to draft with.
        """
        return self.drafter.open(model, self.bytes)

    def check_processors(self, processors: LogitsProcessorList, batch: int) -> None:
        """Refuse a batch under a logits processor that may keep a state from call to call.

        One-byte decoding calls it once a position, with the whole batch; where rows of a batch are at lengths of
        their own there is no such call to make. A single row is called as one-byte decoding calls it.

        Raises:
            ProxyByteError: with the processor's name.
        """
        for processor in processors if batch > 1 else ():
            if not is_stateless(processor):
                raise ProxyByteError(
                    f"{self.name} cannot be combined with {type(processor).__name__} in a batch of {batch}, because "
                    "a processor may keep a state from call to call: generate one row at a time, or, if it keeps "
                    "none, set keeps_no_state = True on it"
                )

    def check(self, mode: GenerationMode, config: GenerationConfig, others: dict[str, Any]) -> None:
        """Refuse what drafts cannot be combined with.

        Raises:
            ProxyByteError: with what stands in the way.
        """
        if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
            raise ProxyByteError(
                f"{self.name} cannot be combined with {mode.value.replace('_', ' ')}: "
                "it is for greedy decoding and sampling"
            )
        if not config.use_cache:
            raise ProxyByteError(f"{self.name} needs a cache: leave use_cache=False out")
        for name in _UNSUPPORTED:
            if getattr(config, name, None):
                raise ProxyByteError(f"{self.name} cannot be combined with {name}: leave one of them out")
        if others.get("synced_gpus"):
            raise ProxyByteError(f"{self.name} does not run on a model that is sharded over processes")
