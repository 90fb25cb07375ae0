"""Drafts from the text's own repeats: what followed the last time that it ended as it does now.

Code and prose say things again: names, indentation, whole lines. Where the last few symbols of a text occur earlier in
it, prompt included, what followed their latest occurrence is drafted (prompt lookup; Saxena 2023), for nothing but a
look into a table. The draft is a fixed function of the text so far, as :mod:`.multibyte_decoding` asks, so that the
output stays what it is, greedy or sampled.
"""

from typing import Any

from .draft_offer import Draft
from .draft_text import Texts

MATCH = 5
"""Symbols that must have occurred before."""
_MOST = 15
_PRIOR_RIGHT, _PRIOR_DRAFTED, _MEMORY = 8.0, 10.0, 0.95


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


class RepeatsDrafter:
    """Drafts from repeats, and has another draft where there is none.

    How sure a repeat is, is what repeats have been worth in these texts so far.

    Args:
        other: drafts for rows that do not repeat; nobody if absent.
        most: most symbols of a draft.
    """

    def __init__(self, other: Any, most: int | None) -> None:
        self._other = other
        self._copied = _MOST if most is None else most
        self.most = self._copied if other is None else max(self._copied, other.most)
        self.forwards = 0
        self._rows: list[Repeats] | None = None
        self._drafts: list[list[int]] = []
        self._right, self._drafted = _PRIOR_RIGHT, _PRIOR_DRAFTED

    def see(self, output: Any, at: list[int]) -> None:
        """Take what a forward pass says at position ``at`` of each active row."""
        if self._other is not None:
            self._other.see(output, at)

    def keep(self, places: list[int]) -> None:
        """Drop all active rows but those at ``places``."""
        if self._rows is not None:
            self._rows = [self._rows[place] for place in places]
            self._drafts = [self._drafts[place] for place in places]
        if self._other is not None:
            self._other.keep(places)

    def propose(self, texts: Texts, most: int) -> list[Draft]:
        """A draft for each active row, of ``most`` symbols or fewer."""
        if self._rows is None:
            self._rows = [Repeats() for _ in texts.active]
            self._drafts = [[] for _ in texts.active]
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

    def _learn(self, draft: list[int], new: list[int]) -> None:
        """Count how many of a draft's symbols came, each behind right ones alone; what was long ago counts less."""
        tried = min(len(draft), len(new))
        right = next((place for place in range(tried) if draft[place] != new[place]), tried)
        if tried:
            self._right = _MEMORY * (self._right + right)
            self._drafted = _MEMORY * (self._drafted + min(right + 1, tried))
