"""What one call of an EVA decoder knows about its rows: padding, documents, and what the cache holds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask
from transformers import Cache

from .configuration_eva import EVA_LAYER, EvaConfig
from .errors import ProxyByteError
from .eva_attention import Documents, EvaSpec, find_documents
from .eva_cache import EvaCacheLayer
from .eva_flex import flex_block_mask
from .eva_step import EvaStep


@dataclass(frozen=True)
class Alignment:
    """Columns of padded rows with the attended ones first, so that windows are cut as in the row alone.

    Attributes:
        order: the column that comes at each place, shape ``(B, T)``.
        back: the place of each column, shape ``(B, T)``.
    """

    order: torch.Tensor
    back: torch.Tensor

    @classmethod
    def of(cls, attended: torch.Tensor) -> "Alignment":
        """From which columns are attended, shape ``(B, T)``."""
        order = attended.ne(0).logical_not().to(torch.uint8).argsort(dim=-1, stable=True)
        return cls(order, order.argsort(dim=-1))

    def align(self, heads: torch.Tensor) -> torch.Tensor:
        """``heads`` ``(B, H, T, D)`` with attended columns first."""
        return _take(heads, self.order)

    def restore(self, heads: torch.Tensor) -> torch.Tensor:
        """Aligned ``heads`` ``(B, H, T, D)`` in the order that they had."""
        return _take(heads, self.back)


@dataclass(frozen=True)
class EvaRows:
    """What one call knows about its rows, the same for all layers.

    Attributes:
        spec: window, chunk and rollback.
        alignment: ``None`` where no row is padded.
        documents: of packed rows, in aligned columns; ``None`` if each row holds one.
        block_mask: for FlexAttention; ``None`` with any other implementation.
        steps: what the cache is to do, a stretch of columns at a time; empty without one.
    """

    spec: EvaSpec
    alignment: Alignment | None = None
    documents: Documents | None = None
    block_mask: BlockMask | None = None
    steps: tuple[EvaStep, ...] = ()


@dataclass(frozen=True)
class RowInputs:
    """What a forward call was given.

    Attributes:
        shape: rows and new columns.
        device: of the tensors.
        attention_mask: shape ``(B, S)`` over columns seen before and new ones, or ``None``.
        position_ids: shape ``(B or 1, T)``, or ``None``.
        cache: or ``None``.
    """

    shape: torch.Size
    device: torch.device
    attention_mask: torch.Tensor | None
    position_ids: torch.Tensor | None
    cache: Cache | None

    @property
    def batch(self) -> int:
        """Rows."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """New columns."""
        return self.shape[1]


def describe_rows(config: EvaConfig, given: RowInputs) -> tuple[EvaRows, torch.Tensor]:
    """What the layers need to know, and positions ``(B or 1, T)``.

    Raises:
        ProxyByteError: if mask or cache do not fit, or if packed documents meet a cache.
    """
    spec = EvaSpec(config.window_size, config.chunk_size, config.cache_rollback)
    layer = _first_layer(given.cache)
    seen = 0 if layer is None else layer.seen
    before = layer.lengths if layer is not None and seen else (0,) * given.batch
    counts, alignment, attended = (given.columns,) * given.batch, None, None
    if given.attention_mask is not None:
        before, counts = _count(given.attention_mask, given.shape, seen)
        if min(counts) < given.columns:
            alignment = Alignment.of(given.attention_mask[:, seen:])
            attended = _range(given) < torch.tensor(counts, device=given.device)[:, None]
    documents, position_ids = None, given.position_ids
    if position_ids is None:
        places = _range(given)[None] if alignment is None else alignment.back
        position_ids = places + torch.tensor(before, device=given.device)[:, None]
    elif not seen:
        position_ids = position_ids.expand(given.batch, -1)
        ordered = position_ids if alignment is None else position_ids.gather(1, alignment.order)
        documents = find_documents(ordered, attended)
        if documents is not None and layer is not None:
            raise ProxyByteError(
                "position_ids hold several documents in a row, which a cache cannot keep apart: pass use_cache=False"
            )
    block_mask = None
    if config._attn_implementation == "flex_attention" and not seen:
        starts = None if documents is None else documents.starts
        block_mask = flex_block_mask(given.columns, spec, starts, given.device)
    steps = () if layer is None else layer.plan(spec, before, counts, given.columns)
    return EvaRows(spec, alignment, documents, block_mask, steps), position_ids


def _range(given: RowInputs) -> torch.Tensor:
    return torch.arange(given.columns, device=given.device)


def _first_layer(cache: Cache | None) -> EvaCacheLayer | None:
    if cache is None:
        return None
    layer: Any = cache.layers[0] if cache.layers else None
    # By its type rather than its class: a model from the Hub brings another copy of that.
    if getattr(layer, "_layer_type", None) != EVA_LAYER:
        raise ProxyByteError("past_key_values is no cache for EVA attention: make it by DynamicCache(config=...)")
    return layer


def _count(attention_mask: torch.Tensor, shape: torch.Size, seen: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many columns each row attends to among those seen before and among the new ones."""
    attended = attention_mask.ne(0)
    if attended.shape != (shape[0], seen + shape[1]):
        raise ProxyByteError(
            f"attention_mask has shape {tuple(attended.shape)}: EVA needs a number for each of {shape[0]} rows "
            f"and {seen} + {shape[1]} columns, those in the cache and the new ones"
        )
    before, counts = torch.stack([attended[:, :seen].sum(-1), attended[:, seen:].sum(-1)]).tolist()
    return tuple(before), tuple(counts)


def _take(heads: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Columns ``(B, T)`` of ``(B, H, T, D)``."""
    return heads.gather(2, columns[:, None, :, None].expand_as(heads))
