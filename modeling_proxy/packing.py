"""Positions of padded and packed rows, and the guard that keeps packed documents apart.

Transformers isolates the documents of a packed row from ``position_ids`` alone, but only where there is neither a
cache nor an attention mask; otherwise they see each other without a word.
"""

import torch

from .errors import ProxyByteError


def positions_from_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions that count attended symbols only, so that a left-padded row equals the row alone.

    Args:
        attention_mask: shape ``(B, S)``, nonzero where attended.

    Returns:
        Shape ``(B, S)``, 0 on padding.
    """
    attended = attention_mask.ne(0)
    return (attended.long().cumsum(-1) - 1).masked_fill(~attended, 0)


def holds_several_documents(position_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> bool:
    """Whether positions jump anywhere between two neighbours that are both attended.

    Args:
        position_ids: shape ``(B, T)``.
        attention_mask: shape ``(B, T)``, or ``None`` where everything is attended.
    """
    jumps = position_ids.diff(dim=-1) != 1
    if attention_mask is not None:
        attended = attention_mask.ne(0)
        jumps = jumps & attended[:, 1:] & attended[:, :-1]
    return bool(jumps.any())


def mask_of_packed_rows(
    position_ids: torch.Tensor, attention_mask: torch.Tensor | None, use_cache: bool
) -> torch.Tensor | None:
    """The attention mask to go on with: none for packed rows, unchanged for others.

    Raises:
        ProxyByteError: if rows are packed and a cache or padding would let their documents see each other.
    """
    if not holds_several_documents(position_ids, attention_mask):
        return attention_mask
    if use_cache:
        raise ProxyByteError("position_ids hold several documents in a row, which a cache cannot keep apart: "
                             "pass use_cache=False")  # fmt: skip
    if attention_mask is not None and not bool(attention_mask.ne(0).all()):
        raise ProxyByteError("position_ids hold several documents in a row and attention_mask hides symbols, which "
                             "would let documents see each other: leave attention_mask out")  # fmt: skip
    return None
