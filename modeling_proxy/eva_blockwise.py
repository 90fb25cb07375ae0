r"""EVA attention of whole rows without a mask of the whole row: memory grows as the row, not as its square.

*Blocks.* A block of queries attends to a slice of the summaries beside a slice of its own window. In packed rows both
slices begin where the block's first document does. This works on any device.

*Merged.* On a CPU, and in rows of one document, a window attends to itself and to the summaries in two calls of the
fused kernel, causal and full, neither with a mask. With :math:`o_1, o_2` their outputs and :math:`l_1, l_2` their
log-normalisers the softmax over both has :math:`l = \log(e^{l_1} + e^{l_2})` and
:math:`o = e^{l_1 - l} o_1 + e^{l_2 - l} o_2`; given :math:`o` and :math:`l`, the kernel's backward of each call yields
its share of the gradient of the whole, because it computes the weights anew as :math:`e^{s q \cdot k - l}`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from .eva_attention import Documents, EvaSpec, KeysValues

QUERY_BLOCK = 256
"""Queries that attend at once: their keys are copied and masked together, half of the block's own in vain."""

# The CPU's fused kernel by its own name, because only so does it give the log-normalisers that its backward needs.
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def windowed_attention(
    qkv: tuple[torch.Tensor, ...], summaries: KeysValues, spec: EvaSpec, documents: Documents | None
) -> torch.Tensor:
    """Attention of whole rows.

    Args:
        qkv: rotated queries and keys, and values, each of shape ``(B, H, T, D)``.
        summaries: of the chunks in all windows but the last.
        spec: window and chunk.
        documents: ``None`` if each row holds one.

    Returns:
        Shape ``(B, H, T, D)``.
    """
    query, key, value = qkv
    if query.shape[2] <= spec.window and documents is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    if documents is None and _kernel(query.device) is _CpuKernel:
        return _MergedAttention.apply(query, key, value, summaries.keys, summaries.values, spec)
    return _BlockwiseAttention.apply(query, key, value, summaries.keys, summaries.values, spec, documents)


@dataclass(frozen=True)
class _Block:
    """Queries ``[first, last)``, the keys ``[key_from, last)`` and the summaries ``[chunk_from, chunk_to)``."""

    first: int
    last: int
    key_from: int
    chunk_from: int
    chunk_to: int

    def keys(self, exact: torch.Tensor, summaries: torch.Tensor) -> torch.Tensor:
        """What the queries attend to, summaries first, shape ``(B, H, K, D)``."""
        return torch.cat(
            [summaries[:, :, self.chunk_from : self.chunk_to], exact[:, :, self.key_from : self.last]], dim=2
        )

    def mask(self, chunk: int, documents: Documents | None, device: torch.device) -> torch.Tensor:
        """Whether a query sees a key, shape ``(B or 1, 1, Q, K)``."""
        queries = torch.arange(self.first, self.last, device=device)[:, None]
        chunk_ends = torch.arange(self.chunk_from, self.chunk_to, device=device) * chunk + chunk - 1
        columns = torch.cat([chunk_ends, torch.arange(self.key_from, self.last, device=device)])
        mask = (columns <= queries)[None, None]
        if documents is not None:
            mask = mask & (columns >= documents.starts[:, None, self.first : self.last, None])
        return mask


def _blocks(length: int, spec: EvaSpec, documents: Documents | None) -> list[_Block]:
    blocks = []
    for window in range(0, length, spec.window):
        window_end = min(window + spec.window, length)
        for first in range(window, window_end, QUERY_BLOCK):
            earliest = 0 if documents is None else documents.earliest[first]
            chunk_to = spec.chunks_before(window)
            chunk_from = min(earliest // spec.chunk, chunk_to)
            last = min(first + QUERY_BLOCK, window_end)
            blocks.append(_Block(first, last, max(window, earliest), chunk_from, chunk_to))
    return blocks


class _BlockwiseAttention(torch.autograd.Function):
    """Forward and backward a block of queries at a time; keeps inputs, output and log-normalisers only."""

    @staticmethod
    def forward(ctx: Any, query, key, value, chunk_keys, chunk_values, spec: EvaSpec, documents: Documents | None):
        blocks, kernel = _blocks(query.shape[2], spec, documents), _kernel(query.device)
        outputs, norms = [], []
        for block in blocks:
            mask = block.mask(spec.chunk, documents, query.device)
            part = query[:, :, block.first : block.last]
            output, norm = kernel.forward(part, block.keys(key, chunk_keys), block.keys(value, chunk_values), mask)
            outputs.append(output)
            norms.append(norm)
        ctx.blocks, ctx.spec, ctx.documents = blocks, spec, documents
        result = torch.cat(outputs, dim=2)
        ctx.save_for_backward(query, key, value, chunk_keys, chunk_values, result, *norms)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor):
        query, key, value, chunk_keys, chunk_values, result, *norms = ctx.saved_tensors
        grads = [torch.zeros_like(x) for x in (query, key, value, chunk_keys, chunk_values)]
        query_grad, key_grad, value_grad, chunk_key_grad, chunk_value_grad = grads
        kernel = _kernel(query.device)
        for block, norm in zip(ctx.blocks, norms, strict=True):
            mask = block.mask(ctx.spec.chunk, ctx.documents, query.device)
            rows = slice(block.first, block.last)
            inputs = (query[:, :, rows], block.keys(key, chunk_keys), block.keys(value, chunk_values))
            q, k, v = kernel.backward(grad[:, :, rows], inputs, result[:, :, rows], norm, mask)
            query_grad[:, :, rows] = q
            chunks = block.chunk_to - block.chunk_from
            for exact, summary, part in ((key_grad, chunk_key_grad, k), (value_grad, chunk_value_grad, v)):
                summary[:, :, block.chunk_from : block.chunk_to] += part[:, :, :chunks]
                exact[:, :, block.key_from : block.last] += part[:, :, chunks:]
        return *grads, None, None


class _MergedAttention(torch.autograd.Function):
    """Forward and backward a window at a time, for the CPU; keeps inputs, output and log-normalisers only."""

    @staticmethod
    def forward(ctx: Any, query, key, value, chunk_keys, chunk_values, spec: EvaSpec):
        outputs, norms = [], []
        for window, queries in enumerate(query.split(spec.window, dim=2)):
            rows = slice(window * spec.window, (window + 1) * spec.window)
            output, norm = _FUSED(queries, key[:, :, rows], value[:, :, rows], is_causal=True)
            if chunks := spec.chunks_before(rows.start):
                far, far_norm = _FUSED(queries, chunk_keys[:, :, :chunks], chunk_values[:, :, :chunks])
                near_norm, norm = norm, torch.logaddexp(norm, far_norm)
                near_share, far_share = ((x - norm).exp().unsqueeze(-1) for x in (near_norm, far_norm))
                output = (output * near_share + far * far_share).to(output.dtype)
            outputs.append(output)
            norms.append(norm)
        ctx.spec = spec
        ctx.save_for_backward(query, key, value, chunk_keys, chunk_values, *outputs, *norms)
        return torch.cat(outputs, dim=2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor):
        query, key, value, chunk_keys, chunk_values, *kept = ctx.saved_tensors
        grads = [torch.zeros_like(x) for x in (query, key, value, chunk_keys, chunk_values)]
        query_grad, key_grad, value_grad, chunk_key_grad, chunk_value_grad = grads
        half = len(kept) // 2
        for window, (output, norm) in enumerate(zip(kept[:half], kept[half:], strict=True)):
            rows = slice(window * ctx.spec.window, (window + 1) * ctx.spec.window)
            queries, out_grad = query[:, :, rows], grad[:, :, rows]
            near = _FUSED_BACKWARD(
                out_grad, queries, key[:, :, rows], value[:, :, rows], output, norm, 0.0, is_causal=True
            )
            for total, part in zip((query_grad, key_grad, value_grad), near, strict=True):
                total[:, :, rows] = part
            if chunks := ctx.spec.chunks_before(rows.start):
                held = (chunk_keys[:, :, :chunks], chunk_values[:, :, :chunks])
                far = _FUSED_BACKWARD(out_grad, queries, *held, output, norm, 0.0, is_causal=False)
                query_grad[:, :, rows] += far[0]
                chunk_key_grad[:, :, :chunks] += far[1]
                chunk_value_grad[:, :, :chunks] += far[2]
        return *grads, None


def _bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)


class _CpuKernel:
    """The CPU's fused kernel."""

    @staticmethod
    def forward(query, key, value, mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Output and log-normalisers."""
        bias = _bias(mask, query.dtype)
        return _FUSED(query, key, value, attn_mask=bias)

    @staticmethod
    def backward(grad, inputs, output, norm, mask) -> tuple[torch.Tensor, ...]:
        """Gradients of query, keys and values."""
        bias = _bias(mask, grad.dtype)
        return _FUSED_BACKWARD(grad, *inputs, output, norm, 0.0, is_causal=False, attn_mask=bias)


class _AnyKernel:
    """Whatever the device has; backward runs forward again."""

    @staticmethod
    def forward(query, key, value, mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Output, and nothing to keep."""
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask), query.new_empty(0)

    @staticmethod
    def backward(grad, inputs, output, norm, mask) -> tuple[torch.Tensor, ...]:
        """Gradients of query, keys and values."""
        with torch.enable_grad():
            query, key, value = (x.detach().requires_grad_() for x in inputs)
            again = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return torch.autograd.grad(again, (query, key, value), grad)


def _kernel(device: torch.device) -> type[_CpuKernel] | type[_AnyKernel]:
    return _CpuKernel if device.type == "cpu" else _AnyKernel
