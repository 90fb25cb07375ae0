"""EVA attention by its definition: the full mask, position by position. Slow, and that is the point."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Reference:
    """Sizes of the definition."""

    window: int
    chunk: int


def full_mask(length: int, sizes: Reference, documents: list[int]) -> torch.Tensor:
    """Whether position ``i`` sees summary ``c`` or position ``j``: shape ``(T, N + T)``, summaries first.

    ``documents[i]`` numbers the document of position ``i``.
    """
    chunks = -(-length // sizes.chunk)
    mask = torch.zeros(length, chunks + length, dtype=torch.bool)
    for i in range(length):
        for c in range(chunks):
            members = range(c * sizes.chunk, min((c + 1) * sizes.chunk, length))
            earlier = members[-1] // sizes.window < i // sizes.window
            mask[i, c] = earlier and documents[i] in [documents[j] for j in members]
        for j in range(i + 1):
            mask[i, chunks + j] = i // sizes.window == j // sizes.window and documents[i] == documents[j]
    return mask


def reference_attention(qkv, mu, phi, sizes: Reference, documents: list[list[int]]) -> torch.Tensor:
    """Queries, keys, values ``(B, H, T, D)``, landmarks ``(H, D)``, a document number for each column of each row."""
    query, key, value = qkv
    batch, heads, length, width = query.shape
    scale = width**-0.5
    rows = []
    for b in range(batch):
        keys, values = [], []
        for first in range(0, length, sizes.chunk):
            last = min(first + sizes.chunk, length) - 1
            members = [j for j in range(first, last + 1) if documents[b][j] == documents[b][last]]
            k, v = key[b][:, members], value[b][:, members]
            by_mu = torch.softmax(torch.einsum("hd,hjd->hj", mu, k), -1)
            by_phi = torch.softmax(scale * (torch.einsum("hd,hjd->hj", phi, k) - (k * k).sum(-1) / 2), -1)
            keys.append(torch.einsum("hj,hjd->hd", by_mu, k))
            values.append(torch.einsum("hj,hjd->hd", by_phi, v))
        all_keys = torch.cat([torch.stack(keys, 1), key[b]], 1)
        all_values = torch.cat([torch.stack(values, 1), value[b]], 1)
        scores = scale * query[b] @ all_keys.transpose(1, 2)
        scores = scores.masked_fill(~full_mask(length, sizes, documents[b]), -torch.inf)
        rows.append(torch.softmax(scores, -1) @ all_values)
    return torch.stack(rows)
