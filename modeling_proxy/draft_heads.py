"""Drafts from the model's own multi-byte heads, which the forward pass that verifies also computes."""

from typing import Any

import torch

from .draft_text import Texts
from .errors import ProxyByteError


class HeadsDrafter:
    """Each head's likeliest symbol.

    After position ``t`` of a text head 0 gives symbol ``t + 1`` and head ``h`` drafts ``t + 1 + h``: what the last
    accepted position's heads say begins right behind the symbol that its head 0 has just given.

    Args:
        config: of the model.
        most: most symbols to draft.

    Raises:
        ProxyByteError: if the model has no heads to draft with.
    """

    def __init__(self, config: Any, most: int | None) -> None:
        heads = getattr(config, "num_pred_heads", 1) - 1 + getattr(config, "num_raw_pred_heads", 0)
        if not heads:
            raise ProxyByteError("draft='heads' needs a model with multi-byte heads: this one has none")
        self.most = heads if most is None else min(most, heads)
        self.forward_inputs: dict[str, Any] = {"return_head_logits": True}
        self.forwards = 0
        self._drafts: torch.Tensor

    def see(self, output: Any, at: torch.Tensor) -> None:
        """Take what a forward pass says at position ``at`` of each active row, shape ``(A,)``."""
        rows = torch.arange(len(at), device=at.device)
        self._drafts = output.head_logits[rows, at, : self.most].argmax(dim=-1)

    def keep(self, places: list[int]) -> None:
        """Drop all active rows but those at ``places``."""
        self._drafts = self._drafts[places]

    def propose(self, texts: Texts, most: int) -> torch.Tensor:
        """A draft for each active row, shape ``(A, n)`` with ``n <= most``."""
        return self._drafts[:, :most]
