r"""Heads that predict further than the next symbol: their targets, their weights in the loss, their drafts.

With :math:`n` heads over all symbols and :math:`m` more over the 320 raw symbols, head :math:`h = 0, \dots, n + m - 1`
at position :math:`t` of a row predicts :math:`y_{t+1+h}`. It is *valid* there,

* if position :math:`t + 1 + h` is a target (its label is not ``IGNORE_INDEX``),
* if, for :math:`h \ge 1`, it belongs to the document of position :math:`t`,
* and if, for a raw head (:math:`h \ge n`), each of the positions :math:`t + 1, \dots, t + 1 + h` is a target and a raw
  symbol (an id below 320: a byte or a special). A draft is accepted only with all those before it, and behind a
  compressed symbol there is no raw draft to accept.

With :math:`M_t` the valid heads of position :math:`t` and :math:`\ell_{ht}` the nats of head :math:`h` there,

.. math:: L = \frac{1}{n_{items}} \sum_t \frac{1}{|M_t|} \sum_{h \in M_t} \ell_{ht},

the mean over heads at each position (EvaByte; Gloeckle et al. 2024, arXiv 2404.19737, sum over heads).
"""

import torch
from torch import nn
from torch.nn import functional as F

from .losses import is_plain_linear
from .symbols import COMPRESSED_OFFSET, IGNORE_INDEX


def head_targets(
    labels: torch.Tensor, position_ids: torch.Tensor | None, num_heads: int, num_raw_heads: int
) -> torch.Tensor:
    """What each head is to predict at each position.

    Args:
        labels: shape ``(B, T)``, as ``input_ids``, ``IGNORE_INDEX`` where a position is no target.
        position_ids: shape ``(B, T)`` or ``(1, T)``; a document begins wherever one is not the last one plus 1. A row
            is one document without them.
        num_heads: heads over all symbols, head 0 among them, which predicts every label.
        num_raw_heads: heads over the raw symbols.

    Returns:
        Shape ``(num_heads + num_raw_heads, B, T)``, ``IGNORE_INDEX`` where a head is not valid.
    """
    document = None if position_ids is None else _documents(position_ids)
    targets = []
    only_raw = torch.ones_like(labels, dtype=torch.bool)
    for head in range(num_heads + num_raw_heads):
        ahead = _ahead(labels, head + 1, IGNORE_INDEX)
        valid = only_raw.new_ones(())
        if head > 0 and document is not None:
            valid = _ahead(document, head + 1, -1) == document
        only_raw = only_raw & (ahead >= 0) & (ahead < COMPRESSED_OFFSET)
        if head >= num_heads:
            valid = valid & only_raw
        targets.append(ahead.where(valid, IGNORE_INDEX))
    return torch.stack(targets)


def head_weights(targets: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """One over the number of valid heads at each position, 0 for the others.

    Args:
        targets: shape ``(H, B, T)``, of :func:`head_targets`.
        dtype: of the result, whose shape is that of ``targets``.
    """
    valid = targets.ne(IGNORE_INDEX)
    return valid.to(dtype) / valid.sum(dim=0).clamp(min=1)


def draft_logits(head: nn.Module, hidden: torch.Tensor, count: int) -> torch.Tensor:
    """The raw symbols' logits of ``count`` heads stacked in ``head``.

    Args:
        head: maps ``(..., D)`` to ``(..., count * V)``.
        hidden: shape ``(B, K, D)``.
        count: stacked heads.

    Returns:
        Shape ``(B, K, count, 320)``.
    """
    if not is_plain_linear(head) or head.out_features == count * COMPRESSED_OFFSET:
        return head(hidden).unflatten(-1, (count, -1))[..., :COMPRESSED_OFFSET]
    # A batch of products in place of one, because the raw rows of the stacked heads do not lie side by side.
    rows = head.weight.unflatten(0, (count, -1))[:, :COMPRESSED_OFFSET]
    logits = hidden.flatten(0, 1) @ rows.mT
    return logits.transpose(0, 1).unflatten(0, hidden.shape[:2])


def _documents(position_ids: torch.Tensor) -> torch.Tensor:
    """Number of each position's document in its row, from 0, shape of ``position_ids``."""
    return F.pad(position_ids.diff(dim=-1) != 1, (1, 0)).cumsum(dim=-1)


def _ahead(values: torch.Tensor, distance: int, fill: int) -> torch.Tensor:
    """``values[:, t + distance]`` at ``t``, shape ``(B, T)``; ``fill`` beyond the end."""
    return F.pad(values[:, distance:], (0, min(distance, values.shape[1])), value=fill)
