"""Drafts from the model's own multi-byte heads, which the forward pass that verifies also computes."""

from typing import Any

import torch

from .draft_offer import Draft
from .draft_text import Texts
from .errors import ProxyByteError


class HeadsDrafter:
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
