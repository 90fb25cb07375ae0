r"""EVA attention: exact inside a window, one summary for each chunk of earlier windows.

Zheng et al., *Efficient Attention via Control Variates* (ICLR 2023), in the causal form of EvaByte. With :math:`W`
the window, :math:`C` the chunk, :math:`s = d^{-1/2}` and rotated queries, keys and values of one head, the positions
:math:`j` of chunk :math:`c` give

.. math::
    \bar k_c = \sum_j \operatorname{softmax}_j(\mu \cdot k_j)\, k_j, \qquad
    \bar v_c = \sum_j \operatorname{softmax}_j\big(s (\phi \cdot k_j - |k_j|^2 / 2)\big)\, v_j

and position :math:`i` attends, in one softmax of :math:`s\, q_i \cdot k`, to the positions :math:`j \le i` of its
own window :math:`\lfloor i / W \rfloor` and to the summaries of all chunks of earlier windows.

**Packed documents.** Windows and chunks are cut by the column in the row, not by the position in the document. Of a
chunk that spans documents only the last document's positions count, and a query sees keys and summaries of its own
document alone. As a document is a stretch of columns, one number for each position says all: the column ``start`` at
which its document begins. Query ``i`` sees key ``j <= i`` if ``j >= start[i]``, and a chunk of an earlier window if the
chunk's last column is ``>= start[i]``.

**Kernels** attend without a mask of the whole row: memory grows as the row, not as its square.

*Blocks.* A block of queries attends to a slice of the summaries beside a slice of its own window. In packed rows both
slices begin where the block's first document does. This works on any device.

*Merged.* On a CPU, and in rows of one document, a window attends to itself and to the summaries in two calls of the
fused kernel, causal and full, neither with a mask. With :math:`o_1, o_2` their outputs and :math:`l_1, l_2` their
log-normalisers the softmax over both has :math:`l = \log(e^{l_1} + e^{l_2})` and
:math:`o = e^{l_1 - l} o_1 + e^{l_2 - l} o_2`; given :math:`o` and :math:`l`, the kernel's backward of each call yields
its share of the gradient of the whole, because it computes the weights anew as :math:`e^{s q \cdot k - l}`.
*FlexAttention.* One call, on accelerators.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers.integrations.flex_attention import compile_friendly_flex_attention

QUERY_BLOCK = 256
"""Queries that attend at once: their keys are copied and masked together, half of the block's own in vain."""

# The CPU's fused kernel by its own name, because only so does it give the log-normalisers that its backward needs.
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class EvaSpec:
    """Sizes of windows and chunks, in positions.

    Attributes:
        window: exact attention; a multiple of ``chunk``.
        chunk: positions of one summary.
        rollback: how many of the last positions a cache can drop again.
    """

    window: int
    chunk: int
    rollback: int

    def chunks_before(self, column: int) -> int:
        """Number of chunks in the windows before the one that holds ``column``."""
        return column // self.window * (self.window // self.chunk)


@dataclass(frozen=True)
class Documents:
    """Where the documents of packed rows begin.

    Attributes:
        starts: column at which each position's document begins, shape ``(B, T)``.
        earliest: for each column the least of ``starts`` over rows; no query from there on sees anything before it.
    """

    starts: torch.Tensor
    earliest: tuple[int, ...]


@dataclass(frozen=True)
class Landmarks:
    """The learned vectors of a layer, each of shape ``(H, D)``."""

    mu: torch.Tensor
    phi: torch.Tensor


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of positions or of chunks, each of shape ``(B, H, N, D)``."""

    keys: torch.Tensor
    values: torch.Tensor


def find_documents(position_ids: torch.Tensor, attended: torch.Tensor | None = None) -> Documents | None:
    """Documents of packed rows from where positions do not go on by one; ``None`` if each row holds but one.

    Args:
        position_ids: shape ``(B, T)``.
        attended: shape ``(B, T)``, false on padding, which opens no document.
    """
    opens = F.pad(position_ids.diff(dim=-1) != 1, (1, 0), value=False)
    if attended is not None:
        opens = opens & attended
    if not bool(opens.any()):
        return None
    columns = torch.arange(opens.shape[1], device=opens.device)
    starts = torch.where(opens, columns, 0).cummax(dim=-1).values
    return Documents(starts, tuple(starts.amin(0).tolist()))


def summarize(states: KeysValues, landmarks: Landmarks, chunk: int, starts: torch.Tensor | None = None) -> KeysValues:
    """Summaries of whole chunks, the equations above.

    Args:
        states: rotated keys, and values, each of shape ``(B, H, N * chunk, D)``.
        landmarks: the layer's learned vectors.
        chunk: positions of a chunk.
        starts: as in :class:`Documents`, shape ``(B, N * chunk)``; ``None`` if rows hold one document.

    Returns:
        One key and one value for each chunk, each of shape ``(B, H, N, D)``.
    """
    keys, values = states.keys, states.values
    scale = keys.shape[-1] ** -0.5
    wide = torch.promote_types(keys.dtype, torch.float32)
    probes = torch.stack([landmarks.mu, landmarks.phi * scale], dim=-1).to(keys.dtype)
    logits = (keys @ probes).to(wide)
    square = keys.to(wide).square().sum(-1, keepdim=True)
    logits = torch.cat([logits[..., :1], logits[..., 1:] - scale / 2 * square], dim=-1).unflatten(2, (-1, chunk))
    if starts is not None:
        columns = torch.arange(starts.shape[1], device=starts.device).view(-1, chunk)
        foreign = columns < starts[:, chunk - 1 :: chunk, None]
        logits = logits.masked_fill(foreign[:, None, :, :, None], -torch.inf)
    weights = logits.softmax(dim=-2).to(keys.dtype)
    return KeysValues(
        (weights[..., :1] * keys.unflatten(2, (-1, chunk))).sum(-2),
        (weights[..., 1:] * values.unflatten(2, (-1, chunk))).sum(-2),
    )


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


def flex_block_mask(length: int, spec: EvaSpec, starts: torch.Tensor | None, device: torch.device) -> BlockMask:
    """Who attends to whom, over the keys ``[summaries of all chunks before the last window, positions]``.

    Args:
        length: columns of a row.
        spec: window and chunk.
        starts: as in :class:`Documents`, shape ``(B, T)``; ``None`` if rows hold one document.
        device: of the mask.
    """
    chunks = spec.chunks_before(length - 1)

    def visible(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        column = torch.where(key < chunks, (key + 1) * spec.chunk - 1, key - chunks)
        same_window = column // spec.window == query // spec.window
        allowed = torch.where(key < chunks, ~same_window, same_window) & (column <= query)
        return allowed if starts is None else allowed & (column >= starts[batch, query])

    # Compiled, the mask is never there as a whole.
    compiled = device.type != "cpu"
    batch_size = None if starts is None else starts.shape[0]
    return create_block_mask(visible, batch_size, None, length, chunks + length, device=str(device), _compile=compiled)


def flex_windowed_attention(
    qkv: tuple[torch.Tensor, ...], summaries: KeysValues, block_mask: BlockMask
) -> torch.Tensor:
    """The same as :func:`windowed_attention` in one FlexAttention call; for accelerators, as the CPU has no backward.

    Args:
        qkv: rotated queries and keys, and values, each of shape ``(B, H, T, D)``.
        summaries: of the chunks in all windows but the last.
        block_mask: from :func:`flex_block_mask`.
    """
    query, key, value = qkv
    key, value = torch.cat([summaries.keys, key], dim=2), torch.cat([summaries.values, value], dim=2)
    call: Any = flex_attention if query.device.type == "cpu" else compile_friendly_flex_attention
    return call(query, key, value, block_mask=block_mask)
