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


def lay_out_rows(
    position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, length: int, use_cache: bool | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Positions and mask of ``length`` new symbols a row, such that no document sees another.

    Args:
        position_ids: shape ``(B, length)``, or ``None`` to follow from a two-dimensional mask.
        attention_mask: shape ``(B, S)``, or one that is ready for the backbone.
        length: symbols of a row that go through the backbone.
        use_cache: whether the backbone will keep a cache.

    Returns:
        Positions and mask to give to the backbone; packed rows lose a mask that hides nothing.

    Raises:
        ProxyByteError: if rows are packed and a cache or padding would let their documents see each other.
    """
    # Masks by layer type, in a dictionary, are ready for the backbone too.
    flat = attention_mask if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2 else None
    if position_ids is None:
        return (None if flat is None else positions_from_mask(flat)[:, -length:]), attention_mask
    # A mask over more than the new symbols belongs to a cache that is in use; one of four dimensions is the caller's
    # own. Values cannot steer a program while it is compiled.
    if flat is not None and flat.shape[1] != length:
        flat = None
    if torch.compiler.is_compiling() or not (use_cache or flat is not None):
        return position_ids, attention_mask
    if not holds_several_documents(position_ids, flat):
        return position_ids, attention_mask
    if use_cache:
        raise ProxyByteError(
            "position_ids hold several documents in a row, which a cache cannot keep apart: pass use_cache=False"
        )
    if flat is not None and not bool(flat.ne(0).all()):
        raise ProxyByteError(
            "position_ids hold several documents in a row and attention_mask hides symbols, so that documents would "
            "see each other: leave attention_mask out"
        )
    return position_ids, None
