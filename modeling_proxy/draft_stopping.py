"""Where texts end that grow by several symbols a step: exactly where they would end one symbol at a time."""

from dataclasses import dataclass

import torch
from transformers import StoppingCriteriaList
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from .draft_text import Texts
from .errors import ProxyByteError


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


class Stops:
    """The stopping criteria of ``generate``, asked about every length of every row.

    Args:
        criteria: what ``generate`` prepared.
        texts: the prompts.

    Raises:
        ProxyByteError: without a greatest length; and for a batch that ends by some criterion but has no symbol that
            ends a text, because ``generate`` then writes on in rows that have ended.
    """

    def __init__(self, criteria: StoppingCriteriaList, texts: Texts) -> None:
        limits = [one.max_length for one in criteria if type(one) is MaxLengthCriteria]
        if not limits:
            raise ProxyByteError("drafting needs a greatest length: give max_new_tokens")
        self.max_length = min(limits)
        self._ends = {end for one in criteria if type(one) is EosTokenCriteria for end in one.eos_token_id.tolist()}
        self._others = [one for one in criteria if type(one) not in (MaxLengthCriteria, EosTokenCriteria)]
        if not self._ends and self._others and len(texts.new) > 1:
            raise ProxyByteError("drafting for a batch with stopping criteria needs an eos_token_id")

    def room(self, texts: Texts) -> int:
        """How many symbols the active row with the most room can still get."""
        return self.max_length - min(texts.active_lengths)

    def verify(self, chosen: list[list[int]], draft: list[list[int]], texts: Texts) -> Verified:
        """How far the texts go: to the first symbol that differs from the draft, or ends its row.

        Args:
            chosen: ``1 + n`` symbols for each active row.
            draft: ``n`` for each.
            texts: before them.
        """
        matched, ends = [], []
        for row, symbols, drafted in zip(texts.active, chosen, draft, strict=True):
            match = next((i for i, symbol in enumerate(drafted) if symbol != symbols[i]), len(drafted))
            end = next((i + 1 for i, symbol in enumerate(symbols) if symbol in self._ends), len(symbols) + 1)
            matched.append(match)
            ends.append(min(end, self.max_length - texts.prompt - len(texts.new[row])))
        if self._others:
            ends = self._by_others(matched, ends, chosen, texts)
        counts = [min(1 + match, end) for match, end in zip(matched, ends, strict=True)]
        ended = [count == end for count, end in zip(counts, ends, strict=True)]
        return Verified(counts, [min(pair) for pair in zip(matched, counts, strict=True)], ended)

    def _by_others(self, matched: list[int], ends: list[int], chosen: list[list[int]], texts: Texts) -> list[int]:
        """``ends`` or where any other criterion ends a row before, each asked at each length that is verified."""
        ids, starts, ends = texts.ids(chosen), texts.active_lengths, list(ends)
        reach = [min(1 + match, end) for match, end in zip(matched, ends, strict=True)]
        lengths = {start + step for start, far in zip(starts, reach, strict=True) for step in range(1, far + 1)}
        for length in sorted(lengths):
            ended = self._ended(ids[:, :length])
            for place, row in enumerate(texts.active):
                step = length - starts[place]
                if 1 <= step <= reach[place] and ended[row]:
                    ends[place] = min(ends[place], step)
        return ends

    def _ended(self, ids: torch.Tensor) -> list[bool]:
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for criterion in self._others:
            ended = ended | criterion(ids, None)  # type: ignore[arg-type]
        return ended.tolist()
