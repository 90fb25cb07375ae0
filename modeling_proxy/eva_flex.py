"""EVA attention of whole rows in one FlexAttention call, for accelerators."""

from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers.integrations.flex_attention import compile_friendly_flex_attention

from .eva_attention import EvaSpec, KeysValues


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
