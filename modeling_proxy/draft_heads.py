"""Drafts from the model's own multi-byte heads, which the forward pass that verifies also computes."""

from typing import Any

from .draft_text import Texts
from .errors import ProxyByteError


class HeadsDrafter:
    """Each head's likeliest symbol.

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
        self._drafts: list[list[int]] = []

    def see(self, output: Any, at: list[int]) -> None:
        """Take what a forward pass says at position ``at`` of each active row."""
        # For one position of each row, and so only now that it is known.
        hidden = output.last_hidden_state[list(range(len(at))), at][:, None]
        self._drafts = self._model.head_logits(hidden)[:, 0, : self.most].argmax(dim=-1).tolist()

    def keep(self, places: list[int]) -> None:
        """Drop all active rows but those at ``places``."""
        self._drafts = [self._drafts[place] for place in places]

    def propose(self, texts: Texts, most: int) -> list[list[int]]:
        """A draft for each active row, of ``most`` symbols or fewer."""
        return [draft[:most] for draft in self._drafts]
