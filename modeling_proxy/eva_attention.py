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
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


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
