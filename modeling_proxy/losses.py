r"""Cross-entropy of linear heads that never holds all their logits.

For hidden states :math:`h_i`, head rows :math:`w_v` and targets :math:`y_i`,

.. math:: \ell_i = \log \sum_v e^{w_v \cdot h_i} - w_{y_i} \cdot h_i \quad \text{(nats)}.

With 65,856 rows the logits of 8,192 positions fill 2 GB in float32, and their gradient 2 GB more. The gradient of
:math:`\sum_i \ell_i` needs nothing from later in the graph: with :math:`p_i` the softmax minus the one-hot target, it
is :math:`p_i W` for :math:`h_i` and :math:`\sum_i p_i h_i^T` for :math:`W`. So both are computed during the forward
pass, a chunk of positions at a time, while the chunk's logits exist: the same matrix products as the plain way, none
of them twice. It is no slower than the plain way at any vocabulary (docs/model.md). Targets may be weighted, and heads
stacked in one matrix are taken one after the other, so that the logits of one head and one chunk exist at a time.

*Heads that predict further than the next symbol.* With :math:`n` heads over all symbols and :math:`m` more over the
320 raw symbols, head :math:`h = 0, \dots, n + m - 1` at position :math:`t` of a row predicts :math:`y_{t+1+h}`. It is
*valid* there,

* if position :math:`t + 1 + h` is a target (its label is not ``IGNORE_INDEX``),
* if, for :math:`h \ge 1`, it belongs to the document of position :math:`t`,
* and if, for a raw head (:math:`h \ge n`), each of the positions :math:`t + 1, \dots, t + 1 + h` is a target and a raw
  symbol (an id below 320: a byte or a special). A draft is accepted only with all those before it, and behind a
  compressed symbol there is no raw draft to accept.

With :math:`M_t` the valid heads of position :math:`t` and :math:`\ell_{ht}` the nats of head :math:`h` there,

.. math:: L = \frac{1}{n_{items}} \sum_t \frac{1}{|M_t|} \sum_{h \in M_t} \ell_{ht},

the mean over heads at each position (EvaByte; Gloeckle et al. 2024, arXiv 2404.19737, sum over heads).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .symbols import COMPRESSED_OFFSET, IGNORE_INDEX

Head = nn.Module | Callable[[torch.Tensor], torch.Tensor]
"""What maps hidden states to logits."""


@dataclass(frozen=True)
class HeadLoss:
    """Loss of one head, or of several that are stacked.

    Attributes:
        total: weighted sum over targets in nats, a scalar to differentiate.
        nll: nats of each target, shape of the targets, 0 where there is none; unweighted, carries no gradient.
    """

    total: torch.Tensor
    nll: torch.Tensor


def soft_cap(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    """``cap * tanh(logits / cap)``, the logits as they are without a cap (Gemma 2, arXiv 2408.00118)."""
    return logits if cap is None else cap * torch.tanh(logits / cap)


def head_loss(
    head: Head,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    chunk_size: int,
    weights: torch.Tensor | None = None,
    cap: float | None = None,
) -> HeadLoss:
    r"""Cross-entropy of ``head`` on ``hidden``: :math:`\sum_{h, i} w_{hi} \ell_{hi}`.

    Args:
        head: maps ``(n, D)`` to logits ``(n, H * V)``, the blocks of ``H`` heads one after the other. An
            ``nn.Linear`` without bias takes the fast path; any other module (an adapter, a sharded or quantised head)
            or function is called chunk by chunk and again during backward.
        hidden: shape ``(N, D)``.
        targets: shape ``(H, N)``, or ``(N,)`` for one head; ``IGNORE_INDEX`` where a position has none.
        chunk_size: positions whose logits of one head exist at once; shared among the heads of any other module.
        weights: of each target, shape of ``targets``; 1 if absent.
        cap: bound of the logits (:func:`soft_cap`), none if absent.
    """
    stacked = targets if targets.ndim == 2 else targets.unsqueeze(0)
    if is_plain_linear(head):
        gradients = torch.is_grad_enabled()
        wanted = (gradients and hidden.requires_grad, gradients and head.weight.requires_grad)
        factors = None if weights is None else weights.reshape(stacked.shape)
        total, nll = _FusedLinearLoss.apply(hidden, head.weight, stacked, factors, (chunk_size, cap), wanted)
        return HeadLoss(total, nll.view_as(targets))
    size = max(1, chunk_size // len(stacked))
    pairs = zip(hidden.split(size), stacked.split(size, dim=1), strict=True)
    parts = [checkpoint(_chunk_nll, head, *pair, cap, use_reentrant=False) for pair in pairs]
    nll = torch.cat(parts, dim=1).view_as(targets)
    return HeadLoss((nll if weights is None else nll * weights).sum(), nll.detach())


def mean_loss(total: torch.Tensor, num_items: torch.Tensor | float) -> torch.Tensor:
    """``total`` divided by a number of targets; no targets are no loss, and no gradient, where 0 / 0 were none."""
    count = torch.as_tensor(num_items, device=total.device)
    return total / count.where(count != 0, 1)


def is_plain_linear(head: Head) -> TypeGuard[nn.Linear]:
    """Whether ``head(x)`` is ``x @ head.weight.T`` and nothing else: no bias, adapter, shard or hook.

    Accelerate offloads a module by a ``forward`` of its own on the object, and its weight is on ``meta`` between calls.
    """
    return (
        type(head) is nn.Linear
        and head.bias is None
        and type(head.weight) is nn.Parameter
        and "forward" not in vars(head)
        and not head.weight.is_meta
        and not head._forward_hooks
        and not head._forward_pre_hooks
    )


def _chunk_nll(head: Head, hidden: torch.Tensor, targets: torch.Tensor, cap: float | None) -> torch.Tensor:
    """Nats ``(H, n)`` of the targets ``(H, n)`` of a chunk ``(n, D)``."""
    logits = soft_cap(_widen(head(hidden)), cap).unflatten(1, (len(targets), -1))
    nll = F.cross_entropy(logits.flatten(0, 1), targets.T.flatten(), reduction="none", ignore_index=IGNORE_INDEX)
    return nll.view(targets.T.shape).T


def _widen(logits: torch.Tensor) -> torch.Tensor:
    """At least float32: sums over a vocabulary lose too much in half precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _FusedLinearLoss(torch.autograd.Function):
    """``(weighted sum of nll, nll)`` of stacked heads with both gradients computed in the forward pass."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, factors, shape: tuple[int, float | None], wanted: tuple[bool, bool]):
        chunk_size, cap = shape
        device = hidden.device.type
        kinds = (hidden.dtype, weight.dtype)
        if torch.is_autocast_enabled(device):
            # Cast once, not once a chunk: autocast's own cache is off where gradients are.
            low = torch.get_autocast_dtype(device)
            hidden, weight = hidden.to(low), weight.to(low)
        with torch.autocast(device, enabled=False):
            wide = torch.promote_types(weight.dtype, torch.float32)
            scales = _scales(targets, factors, wide)
            nll = torch.empty(targets.shape, dtype=wide, device=hidden.device)
            hidden_grad = torch.empty_like(hidden) if wanted[0] else None
            weight_grad = torch.zeros_like(weight, dtype=wide) if wanted[1] else None
            size = len(weight) // len(targets)
            for start in range(0, len(hidden), chunk_size):
                part = slice(start, start + chunk_size)
                rows = hidden[part]
                rows_grad = torch.zeros_like(rows, dtype=wide)
                for index, head in enumerate(weight.split(size)):
                    logits = _widen(rows @ head.T)
                    nll[index, part] = _nll_then_gradient_(
                        logits, targets[index, part], scales[index, part] if any(wanted) else None, cap
                    )
                    gradient = logits.to(weight.dtype)
                    if hidden_grad is not None:
                        _add_product_(rows_grad, gradient, head)
                    if weight_grad is not None:
                        _add_product_(weight_grad[index * size : (index + 1) * size], gradient.T, rows)
                if hidden_grad is not None:
                    hidden_grad[part] = rows_grad
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.kinds = kinds
        ctx.mark_non_differentiable(nll)
        return (nll * scales).sum(), nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, total_grad, _):
        grads = [
            None if grad is None else (grad * total_grad).to(kind)
            for grad, kind in zip(ctx.saved_tensors, ctx.kinds, strict=True)
        ]
        return *grads, None, None, None, None


def _scales(targets: torch.Tensor, factors: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """What each target counts, shape of ``targets``: nothing where there is none."""
    is_target = (targets != IGNORE_INDEX).to(dtype)
    return is_target if factors is None else is_target * factors


def _nll_then_gradient_(
    logits: torch.Tensor, targets: torch.Tensor, scales: torch.Tensor | None, cap: float | None
) -> torch.Tensor:
    """Nats of each target; with ``scales``, ``logits`` (before the cap) becomes the gradient of their sum so scaled."""
    slope = None
    if cap is not None:
        logits.div_(cap).tanh_()
        slope = None if scales is None else 1 - logits.square()
        logits.mul_(cap)
    is_target = targets != IGNORE_INDEX
    index = targets.where(is_target, 0).unsqueeze(1)
    log_norm = torch.logsumexp(logits, dim=1, keepdim=True)
    nll = (log_norm - logits.gather(1, index)).squeeze(1).where(is_target, 0)
    if scales is not None:
        logits.sub_(log_norm).exp_()
        logits.scatter_add_(1, index, logits.new_full((1, 1), -1.0).expand_as(index))
        logits.mul_(scales.unsqueeze(1))
        if slope is not None:
            logits.mul_(slope)
    return nll


def _add_product_(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """``total += left @ right``; half-precision products are summed in float32."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


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
