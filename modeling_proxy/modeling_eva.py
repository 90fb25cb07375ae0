"""A decoder with EVA attention, for ``backbone_config`` of a ProxyByte model.

Parameter names and shapes are those of published EvaByte checkpoints, so that their weights load as they are.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AutoModel, Cache, DynamicCache, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_proxybyte import EVA_LAYER, EvaConfig
from .errors import ProxyByteError
from .eva_attention import (
    Documents,
    EvaSpec,
    KeysValues,
    Landmarks,
    find_documents,
    flex_block_mask,
    flex_windowed_attention,
    summarize,
    windowed_attention,
)
from .eva_cache import EvaCacheLayer, EvaStep, attend_cache
from .row_cache import CACHE


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


class EvaRMSNorm(nn.Module):
    """Root-mean-square norm whose weight is stored as its offset from one."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.eps = eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normed ``hidden`` ``(..., D)``, computed in at least float32."""
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return ((1 + self.weight) * normed).to(hidden.dtype)


class EvaMLP(nn.Module):
    """Gated MLP."""

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Shape ``(..., D)`` to the same."""
        return self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))


class EvaAttention(nn.Module):
    """Projections around EVA attention; equations in ``eva_attention``."""

    def __init__(self, config: EvaConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        width = config.hidden_size
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        # The shape of published checkpoints: batch, head, chunk, position, width.
        shape = (1, config.num_attention_heads, 1, 1, config.head_dim)
        self.adaptive_mu_k = nn.Parameter(torch.empty(shape))
        self.adaptive_phi = nn.Parameter(torch.empty(shape))

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        rows: EvaRows,
        past_key_values: Cache | None = None,
    ) -> torch.Tensor:
        """Shape ``(B, T, D)`` to the same."""
        heads = (*hidden_states.shape[:2], -1, self.head_dim)
        query, key, value = (
            project(hidden_states).view(heads).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        # Under autocast the rotation widens again what the projections made narrow.
        qkv: tuple[torch.Tensor, ...] = (query.to(value.dtype), key.to(value.dtype), value)
        if rows.alignment is not None:
            qkv = tuple(rows.alignment.align(x) for x in qkv)
        output = self._attend(qkv, rows, past_key_values)
        if rows.alignment is not None:
            output = rows.alignment.restore(output)
        return self.o_proj(output.transpose(1, 2).flatten(2))

    def _attend(self, qkv: tuple[torch.Tensor, ...], rows: EvaRows, cache: Any) -> torch.Tensor:
        landmarks = Landmarks(self.adaptive_mu_k[0, :, 0, 0], self.adaptive_phi[0, :, 0, 0])
        if rows.steps and rows.steps[0].visible:
            return self._attend_cache(qkv, rows.steps, landmarks, cache)
        query, key, value = qkv
        spec, length = rows.spec, query.shape[2]
        earlier = spec.chunks_before(length - 1)
        # A cache needs the summaries of the last window too, which nobody sees yet.
        part = slice(0, (length // spec.chunk if rows.steps else earlier) * spec.chunk)
        starts = None if rows.documents is None else rows.documents.starts[:, part]
        summaries = summarize(KeysValues(key[:, :, part], value[:, :, part]), landmarks, spec.chunk, starts)
        if not earlier and torch.is_grad_enabled():
            # Data-parallel training waits for a gradient of every parameter, in short rows too.
            query = query + 0 * (landmarks.mu + landmarks.phi)[:, None].to(query.dtype)
        if rows.steps:
            cache.update(key, value, self.layer_idx, step=rows.steps[0], landmarks=landmarks, summaries=summaries)
            summaries = KeysValues(summaries.keys[:, :, :earlier], summaries.values[:, :, :earlier])
        if rows.block_mask is not None:
            return flex_windowed_attention((query, key, value), summaries, rows.block_mask)
        return windowed_attention((query, key, value), summaries, spec, rows.documents)

    def _attend_cache(
        self, qkv: tuple[torch.Tensor, ...], steps: tuple[EvaStep, ...], landmarks: Landmarks, cache: Any
    ) -> torch.Tensor:
        stretches = zip(*(x.split([step.columns for step in steps], dim=2) for x in qkv), strict=True)
        outputs = []
        for step, (query, key, value) in zip(steps, stretches, strict=True):
            keys, values = cache.update(key, value, self.layer_idx, step=step, landmarks=landmarks)
            outputs.append(attend_cache(query, keys, values, step))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


class EvaDecoderLayer(GradientCheckpointingLayer):
    """Norm, attention, norm, MLP, each pair around a skip."""

    def __init__(self, config: EvaConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = EvaAttention(config, layer_idx)
        self.mlp = EvaMLP(config)
        self.input_layernorm = EvaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = EvaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        rows: EvaRows,
        past_key_values: Cache | None = None,
    ) -> torch.Tensor:
        """Shape ``(B, T, D)`` to the same."""
        normed = self.input_layernorm(hidden_states)
        hidden_states = hidden_states + self.self_attn(normed, position_embeddings, rows, past_key_values)
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class EvaPreTrainedModel(PreTrainedModel):
    """What Transformers asks of every model class."""

    config: EvaConfig
    config_class = EvaConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["EvaDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_record_outputs = {"hidden_states": EvaDecoderLayer}

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        # Transformers would look for its own table of attention functions in this file.
        return True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EvaRMSNorm):
            init.zeros_(module.weight)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.get_text_config().embedding_initializer_range)
        elif isinstance(module, EvaAttention):
            for vector in (module.adaptive_mu_k, module.adaptive_phi):
                init.copy_(vector, torch.randn_like(vector).clamp(-1, 1) * module.head_dim**-0.5)


class EvaModel(EvaPreTrainedModel):
    """Embedding, layers, last norm."""

    def __init__(self, config: EvaConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(EvaDecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = EvaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)  # type: ignore[arg-type]
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states of new columns.

        Args:
            input_ids: symbols, shape ``(B, T)``.
            attention_mask: shape ``(B, S)`` over columns seen before and new ones, 0 on padding. Columns at the end of
                those seen before that it hides are dropped from the cache.
            position_ids: shape ``(B, T)``. Without a cache a new document begins where they do not go on by one.
            past_key_values: from ``DynamicCache(config=...)``.
            inputs_embeds: shape ``(B, T, D)``, in place of ``input_ids``.
            use_cache: whether to make a cache where none is given.
            cache: ``past_key_values`` as Transformers calls them from 5.24 on.
            kwargs: nothing here needs them.

        Raises:
            ProxyByteError: if mask or cache do not fit, or if packed documents meet a cache.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ProxyByteError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        past_key_values = cache if past_key_values is None else past_key_values
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        hidden = inputs_embeds
        given = RowInputs(hidden.shape[:2], hidden.device, attention_mask, position_ids, past_key_values)
        rows, positions = describe_rows(self.config, given)
        position_embeddings = self.rotary_emb(hidden, position_ids=positions)
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=position_embeddings, rows=rows, past_key_values=past_key_values)
        kept: dict[str, Any] = {CACHE: past_key_values}
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden), **kept)


AutoModel.register(EvaConfig, EvaModel, exist_ok=True)
