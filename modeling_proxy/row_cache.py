"""Decoding caches whose rows hold different lengths and forget their last positions at no cost.

Transformers' own caches keep all rows of a batch equally long. When rows accept drafts of different lengths, that
takes either gaps that every later step pays for, or moving whole rows in memory. Here position ``p`` of a row lies in
slot ``p``, whatever the other rows hold: going back is to write over it, and a left-padded row lies as it would alone.

The attention mask says which slots a query sees, so it is exact for full, sliding and chunked attention. The EVA cache
counts by row already and needs no other.
"""

import sys
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.nn import functional as F
from transformers import Cache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from .configuration_proxybyte import EVA_LAYER
from .errors import ProxyByteError

CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
"""What this version of Transformers calls the decoding cache in arguments, outputs, and ``generate``'s own dictionary:
``past_key_values``, and from 5.24 on ``cache``."""
_LEAST_GROWTH = 128
_SLIDING, _CHUNKED, _FULL = "sliding_attention", "chunked_attention", "full_attention"


class EvaRowCache:
    """The cache of an EVA backbone, which keeps a length for each row itself.

    Args:
        cache: after the prompt's forward pass.

    Attributes:
        reach: how many positions it can drop again.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._layers: list[Any] = list(cache.layers)
        self.lengths: list[int] = list(self._layers[0].lengths)
        self.reach: int = self._layers[0].spec.rollback

    def inputs(self, columns: int) -> dict[str, Any]:
        """What a forward pass over ``columns`` new symbols of every row is to be given besides them."""
        self.rewind(self.lengths)
        return {"past_key_values": self.cache, "use_cache": True}

    def rewind(self, lengths: list[int]) -> None:
        """Let each row hold its first ``lengths`` positions; a forward pass adds none by itself.

        Raises:
            ProxyByteError: at the next step, if that is further back than the cache reaches.
        """
        self.lengths = list(lengths)
        for layer in self._layers:
            layer.lengths = tuple(lengths)

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but ``rows``."""
        self.cache.batch_select_indices(torch.tensor(rows))
        self.lengths = list(self._layers[0].lengths)

    def hand_back(self, columns: int) -> Cache:
        """The cache as ``generate`` leaves it after ``columns`` columns, padding included."""
        self.rewind(self.lengths)
        for layer in self._layers:
            layer.seen = columns
        return self.cache


class _RowLayer(CacheLayerMixin):
    """One layer's buffers ``(B, H, slots, D)``; where to write is the owner's business."""

    keys: torch.Tensor  # type: ignore[assignment]
    values: torch.Tensor  # type: ignore[assignment]
    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True
        self.place: tuple[Any, ...] = ()
        self.used = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: it is made from a cache that is in use."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new states ``(B, H, T, D)``; all slots in use, ``(B, H, used, D)``."""
        if len(self.place) == 1:
            self.keys[:, :, self.place[0]] = key_states
            self.values[:, :, self.place[0]] = value_states
        else:
            rows, slots = self.place
            self.keys[rows, :, slots] = key_states.transpose(1, 2)
            self.values[rows, :, slots] = value_states.transpose(1, 2)
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def reserve(self, slots: int) -> None:
        """Room for ``slots`` positions."""
        missing = slots - self.keys.shape[2]
        if missing > 0:
            missing = max(missing, slots // 2, _LEAST_GROWTH)
            for name in ("keys", "values"):
                old = getattr(self, name)
                setattr(self, name, torch.cat([old, old.new_zeros(*old.shape[:2], missing, old.shape[3])], dim=2))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots in use, and the first of them."""
        return self.used, 0

    def get_seq_length(self) -> int:
        """Slots in use."""
        return self.used

    def get_max_length(self) -> int:
        """None: -1."""
        return -1


@dataclass(frozen=True)
class _Rows:
    """Some rows of a :class:`RowCache`: what it holds of each, by the same names."""

    lengths: list[int]
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    held: torch.Tensor
    columns: torch.Tensor
    offset: torch.Tensor | None


def _wider(states: torch.Tensor, slots: int) -> torch.Tensor:
    """Keys or values ``(B, H, T, D)`` with ``slots`` in the place of ``T``."""
    return F.pad(states, (0, 0, 0, slots - states.shape[2]))


class RowCache(Cache):
    """Keys and values by row, made from a ``DynamicCache`` after the prompt's forward pass.

    Args:
        cache: what the prompt left; given back by :meth:`hand_back`.
        attention_mask: shape ``(B, P)`` over its columns, or ``None`` if no row is padded.
        config: of the backbone.
        next_positions: ``position_ids`` of each row's next symbol, shape ``(B,)``, or ``None`` if they count attended
            symbols.

    Raises:
        ProxyByteError: if the cache is of another kind, or the attention implementation takes no mask as a tensor.
    """

    reach = sys.maxsize

    def __init__(
        self,
        cache: Cache,
        attention_mask: torch.Tensor | None,
        config: PreTrainedConfig,
        next_positions: torch.Tensor | None = None,
    ) -> None:
        kinds = {type(layer) for layer in cache.layers}
        if cache.offloading or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
            raise ProxyByteError("drafting needs the default cache: leave cache_implementation and past_key_values out")
        if config._attn_implementation not in ("sdpa", "eager"):
            raise ProxyByteError(
                f"drafting cannot run with attention {config._attn_implementation!r}: "
                "load the model with attn_implementation='sdpa'"
            )
        self._source, self._config = cache, config
        first: Any = cache.layers[0]
        columns, keys = cache.get_seq_length(), first.keys
        batch, self._device = keys.shape[0], keys.device
        if attention_mask is None:
            attention_mask = torch.ones(batch, columns, dtype=torch.long, device=self._device)
        attended = attention_mask[:, :columns].ne(0)
        self._held = attended.sum(1)
        self.lengths: list[int] = self._held.tolist()
        # Column of each slot, the attended ones first.
        self._columns = attended.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
        holes = attended[:, :-1] & ~attended[:, 1:]
        if DynamicSlidingWindowLayer in kinds and bool(holes.any()):
            raise ProxyByteError("drafting with sliding attention needs prompts that are padded on the left alone")
        self._layers = [_RowLayer(*self._taken_in(layer, columns)) for layer in cache.layers]
        self._offset = None
        if next_positions is not None and not torch.equal(next_positions, self._held):
            self._offset = (next_positions - self._held)[:, None]
        self._index = torch.arange(batch, device=self._device)[:, None]
        self._nothing = keys.new_zeros(())
        self._forbidden = torch.full_like(self._nothing, torch.finfo(keys.dtype).min)
        super().__init__(layers=[*self._layers])

    def _taken_in(self, layer: Any, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        lost = columns - layer.keys.shape[2]
        order = (self._columns - lost).clamp(min=0)[:, None, :, None]
        parts = [old.gather(2, order.expand(-1, old.shape[1], -1, old.shape[3])) for old in (layer.keys, layer.values)]
        return parts[0], parts[1]

    def inputs(self, columns: int) -> dict[str, Any]:
        """What a forward pass over ``columns`` new symbols of every row is to be given besides them."""
        used = max(self.lengths) + columns
        alike = len(set(self.lengths)) == 1
        starts = torch.tensor(self.lengths[:1] if alike else self.lengths, device=self._device)[:, None]
        slots = starts + torch.arange(columns, device=self._device)
        place = (slice(used - columns, used),) if alike else (self._index, slots)
        for layer in self._layers:
            layer.reserve(used)
            layer.place, layer.used = place, used
        positions = slots if self._offset is None else slots + self._offset
        return {
            "past_key_values": self,
            "use_cache": True,
            "position_ids": positions.expand(len(self.lengths), -1),
            "attention_mask": self._masks(slots, used),
        }

    def _masks(self, queries: torch.Tensor, used: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """Which slots each query ``(B or 1, T)`` sees, ``(B, 1, T, used)``; by layer type where there are several."""
        config = self._config
        kinds = set(getattr(config, "layer_types", None) or ())
        if not kinds:
            sliding, chunked = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
            kinds = {_SLIDING if sliding else _CHUNKED if chunked else _FULL}
        slots, queries = torch.arange(used, device=self._device), queries[..., None]
        causal = slots <= queries
        masks = {}
        for kind in kinds:
            seen = causal
            if kind == _SLIDING:
                seen = causal & (slots > queries - config.sliding_window)
            elif kind == _CHUNKED:
                size = config.attention_chunk_size
                seen = causal & (slots // size == queries // size)
            # What is added to the scores: of a mask of truths every layer makes that anew.
            added = torch.where(seen, self._nothing, self._forbidden)
            masks[kind] = added[:, None].expand(len(self.lengths), -1, -1, -1)
        return masks if len(masks) > 1 else masks[kinds.pop()]

    def rewind(self, lengths: list[int]) -> None:
        """Let each row hold its first ``lengths`` positions; a forward pass adds none by itself."""
        self.lengths = list(lengths)

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but ``rows``."""
        self._set(self._some(rows))

    def split_off(self, count: int) -> list["_Rows"]:
        """Keep the first ``count`` rows; all others one by one, for :meth:`take_in`."""
        apart = [self._some([row]) for row in range(count, len(self.lengths))]
        self.keep(list(range(min(count, len(self.lengths)))))
        return apart

    def take_in(self, rows: list["_Rows"]) -> None:
        """Let rows that were split off come behind those that are here."""
        everyone = [self._some(list(range(len(self.lengths)))), *rows]
        slots = max(one.layers[0][0].shape[2] for one in everyone)
        layers = []
        for layer in zip(*(one.layers for one in everyone), strict=True):
            keys, values = (torch.cat([_wider(states, slots) for states in side]) for side in zip(*layer, strict=True))
            layers.append((keys, values))
        offsets = [one.offset for one in everyone if one.offset is not None]
        held, columns = (torch.cat([getattr(one, name) for one in everyone]) for name in ("held", "columns"))
        lengths = [length for one in everyone for length in one.lengths]
        self._set(_Rows(lengths, layers, held, columns, torch.cat(offsets) if offsets else None))

    def _some(self, rows: list[int]) -> "_Rows":
        index = torch.tensor(rows, dtype=torch.long, device=self._device)
        lengths = [self.lengths[row] for row in rows]
        used = max(lengths, default=0)
        layers = [
            (layer.keys[:, :, :used].index_select(0, index), layer.values[:, :, :used].index_select(0, index))
            for layer in self._layers
        ]
        offset = None if self._offset is None else self._offset[index]
        return _Rows(lengths, layers, self._held[index], self._columns[index], offset)

    def _set(self, rows: "_Rows") -> None:
        self.lengths, self._held, self._columns, self._offset = rows.lengths, rows.held, rows.columns, rows.offset
        self._index = torch.arange(len(rows.lengths), device=self._device)[:, None]
        for layer, (keys, values) in zip(self._layers, rows.layers, strict=True):
            layer.keys, layer.values = keys, values

    def hand_back(self, columns: int) -> Cache:
        """The cache that this one was made from, as ``generate`` leaves it after ``columns`` columns."""
        before = self._columns.shape[1]
        slots = torch.arange(max(self.lengths), device=self._device)[None]
        known = self._columns.gather(1, slots.clamp(max=before - 1).expand(len(self.lengths), -1))
        # Beyond a row's own length whatever lies there goes to a last column that is cut off again.
        where = torch.where(slots < self._held[:, None], known, before + slots - self._held[:, None])
        lengths = torch.tensor(self.lengths, device=self._device)[:, None]
        where = torch.where(slots < lengths, where, columns).clamp(max=columns)
        sources: list[Any] = list(self._source.layers)
        for layer, source in zip(self._layers, sources, strict=True):
            for name in ("keys", "values"):
                held = getattr(layer, name)[:, :, : slots.shape[1]]
                full = held.new_zeros(*held.shape[:2], columns + 1, held.shape[3])
                full.scatter_(2, where[:, None, :, None].expand_as(held), held)
                first = max(0, columns - source.sliding_window + 1) if source.is_sliding else 0
                setattr(source, name, full[:, :, first:columns])
            if source.is_sliding:
                source.cumulative_length = columns
        return self._source


def open_rows(
    cache: Cache,
    attention_mask: torch.Tensor | None,
    config: PreTrainedConfig,
    next_positions: torch.Tensor | None = None,
) -> EvaRowCache | RowCache:
    """A cache by row, made from what the prompt's forward pass left; arguments and errors as for :class:`RowCache`."""
    # By its type rather than its class: a model from the Hub brings another copy of that.
    if getattr(cache.layers[0], "_layer_type", None) == EVA_LAYER:
        return EvaRowCache(cache)
    return RowCache(cache, attention_mask, config, next_positions)
