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
        ends = [one.eos_token_id for one in criteria if type(one) is EosTokenCriteria]
        self._ends = torch.cat([end.to(texts.ids.device) for end in ends]) if ends else None
        self._others = [one for one in criteria if type(one) not in (MaxLengthCriteria, EosTokenCriteria)]
        if self._ends is None and self._others and len(texts.lengths) > 1:
            raise ProxyByteError("drafting for a batch with stopping criteria needs an eos_token_id")

    def room(self, texts: Texts) -> int:
        """How many symbols the active row with the most room can still get."""
        return self.max_length - min(texts.active_lengths)

    def verify(self, chosen: torch.Tensor, draft: torch.Tensor, texts: Texts) -> Verified:
        """How far the texts go: to the first symbol that differs from the draft, or ends its row.

        Args:
            chosen: symbols, shape ``(A, 1 + n)``.
            draft: shape ``(A, n)``.
            texts: before them.
        """
        right = (chosen[:, :-1] == draft).long().cumprod(dim=1).sum(dim=1)
        end = torch.full_like(right, chosen.shape[1] + 1)
        if self._ends is not None:
            ending = torch.isin(chosen, self._ends)
            end = torch.where(ending.any(dim=1), ending.int().argmax(dim=1) + 1, end)
        matched, ends = torch.stack([right, end]).tolist()
        if self._others:
            ends = self._by_others(matched, ends, chosen, texts)
        ends = [min(end, self.max_length - length) for end, length in zip(ends, texts.active_lengths, strict=True)]
        counts = [min(1 + match, end) for match, end in zip(matched, ends, strict=True)]
        ended = [count == end for count, end in zip(counts, ends, strict=True)]
        return Verified(counts, [min(pair) for pair in zip(matched, counts, strict=True)], ended)

    def _by_others(self, matched: list[int], ends: list[int], chosen: torch.Tensor, texts: Texts) -> list[int]:
        """``ends`` or where any other criterion ends a row before, each asked at each length that is verified."""
        texts.write(chosen)
        starts, ends = texts.active_lengths, list(ends)
        lengths = {start + step for start, match in zip(starts, matched, strict=True) for step in range(1, match + 2)}
        for length in sorted(lengths):
            ended = self._ended(texts, length)
            for place, row in enumerate(texts.active):
                step = length - starts[place]
                if 1 <= step <= matched[place] + 1 and ended[row]:
                    ends[place] = min(ends[place], step)
        return ends

    def _ended(self, texts: Texts, length: int) -> list[bool]:
        ids = texts.ids[:, :length]
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for criterion in self._others:
            ended = ended | criterion(ids, None)  # type: ignore[arg-type]
        return ended.tolist()
