"""A decoder of any architecture over the symbols of both views.

Transformers isolates the documents of a packed row from ``position_ids`` alone, but only where there is neither a
cache nor an attention mask; otherwise they see each other without a word. :func:`lay_out_rows` keeps them apart.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, Cache, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple

from .configuration_proxybyte import EMBEDDINGS, EvaConfig, ProxyByteConfig, check_backbone
from .errors import ProxyByteError
from .generation_proxybyte import ProxyByteGenerationMixin
from .hub_upload import PushesWithCard
from .losses import (
    HeadLoss,
    draft_logits,
    head_loss,
    head_targets,
    head_weights,
    is_plain_linear,
    mean_loss,
    soft_cap,
)
from .row_cache import CACHE
from .suffix_rows import SuffixRows, SuffixRowsConfig, SuffixTable, note_symbols
from .symbols import COMPRESSED_OFFSET, IGNORE_INDEX, Special

_SUPPORTS = (
    "_can_compile_fullgraph",
    "_supports_attention_backend",
    "_supports_flash_attn",
    "_supports_flex_attn",
    "_supports_sdpa",
    "supports_gradient_checkpointing",
)


@dataclass
class ProxyByteOutput(CausalLMOutputWithPast):
    """What a forward pass returns.

    Attributes:
        target_nll: nats of each target ``labels[:, 1:]``, shape ``(B, T-1)``, 0 where there is none; no gradient.
            Only with labels. Of the next symbol alone, whatever the number of heads.
        head_nll: nats of each head summed over its targets in each row, shape ``(B, n + m)``; no gradient. Only with
            labels and more than one head.
        head_targets: over how many targets that is, of the same shape.
        head_logits: drafts of heads 1 and up over the raw symbols, shape ``(B, K, n - 1 + m, 320)``. Only with
            ``return_head_logits``.
        token_logits: of the compressed symbols' rows, shape ``(E, codes)``. Only with ``token_places``.
        last_hidden_state: what the heads read, shape ``(B, K, D)``, where there are logits; ``(B, T, D)`` with
            ``return_hidden``.
    """

    target_nll: torch.Tensor | None = None
    head_nll: torch.Tensor | None = None
    head_targets: torch.Tensor | None = None
    head_logits: torch.Tensor | None = None
    token_logits: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


@dataclass(frozen=True)
class _Targets:
    """What a pass is to be scored by; arguments of ``forward``."""

    labels: torch.Tensor | None
    position_ids: torch.Tensor | None
    num_items: torch.Tensor | int | None
    next_symbol_only: bool
    raw_only: bool


@dataclass(frozen=True)
class _Wanted:
    """What a pass is to return beside losses; arguments of ``forward``."""

    logits_to_keep: int | torch.Tensor
    logits: bool | None
    raw_symbols_only: bool
    head_logits: bool
    token_places: torch.Tensor | None
    hidden: bool


def _sort_caches(past: Cache | None, cache: Any, others: dict[str, Any]) -> tuple[Cache | None, dict[str, Any]]:
    """The decoding cache, and the backbone's other arguments, from an argument called ``cache``.

    From 5.24 on it is the decoding cache. To earlier versions' continuous batching it is one that attention is to have.
    """
    if cache is None or CACHE == "cache":
        return (past if cache is None else cache), others
    return past, {**others, "cache": cache}


class ProxyByteForCausalLM(PushesWithCard, PreTrainedModel, ProxyByteGenerationMixin):
    """A backbone under ``model`` and a head under ``lm_head``: the names of the backbone's own causal model.

    Heads that predict further are stacked under ``pred_heads``, ``((n - 1) * V, D)``, and ``raw_pred_heads``,
    ``(m * 320, D)``, in their order; neither is there without such heads, and neither is ever tied to the embedding.

    Raises:
        ProxyByteError: if the backbone's embedding is not where its own causal model would tie it.
    """

    config: ProxyByteConfig
    config_class = ProxyByteConfig
    base_model_prefix = "model"
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def __init__(self, config: ProxyByteConfig) -> None:
        check_backbone(config.backbone_config)
        super().__init__(config)
        if config.backbone_config.model_type == EvaConfig.model_type:
            # Here rather than above, so that other backbones do not depend on all that EVA needs of Transformers.
            from .modeling_eva import EvaModel

            # From the Hub, configuration and model come as two copies of this folder, each with an EvaConfig.
            AutoModel.register(type(config.backbone_config), EvaModel, exist_ok=True)
        self.model = AutoModel.from_config(config.backbone_config)
        embedding = EMBEDDINGS.get(config.backbone_config.model_type, "embed_tokens")
        if getattr(self.model, embedding, None) is not self.model.get_input_embeddings():
            raise ProxyByteError(
                f"backbone {config.backbone_config.model_type!r} does not keep its embedding under {embedding!r}: "
                "choose a decoder such as 'llama' or 'qwen3'"
            )
        self._tied_weights_keys = {"lm_head.weight": f"model.{embedding}.weight"}
        for name in _SUPPORTS:
            setattr(self, name, getattr(self.model, name))
        # What the backbone fell back to (Gemma 2 runs no SDPA): continuous batching asks the outer configuration.
        config._attn_implementation_internal = self.model.config._attn_implementation
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # Beside the generator and after lm_head, so that no other weight depends on how many heads there are.
        with torch.random.fork_rng(devices=[]):
            if config.num_pred_heads > 1:
                rows = (config.num_pred_heads - 1) * config.vocab_size
                self.pred_heads = nn.Linear(config.hidden_size, rows, bias=False)
            if config.num_raw_pred_heads:
                rows = config.num_raw_pred_heads * COMPRESSED_OFFSET
                self.raw_pred_heads = nn.Linear(config.hidden_size, rows, bias=False)
        if config.suffix_rows is not None:
            self.suffix_rows = SuffixRows(config.suffix_rows)
        self.generation_config.update(
            pad_token_id=config.pad_token_id,
            bos_token_id=config.bos_token_id,
            eos_token_id=[int(Special.EOS), int(Special.RAW_CLOSE)],
        )
        # It is ours and no copy of the model's configuration: from such a copy Transformers drops what it does not
        # know, as ``draft``, when a folder is read.
        self.generation_config._from_model_config = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_logits: bool | None = None,
        raw_symbols_only: bool = False,
        return_head_logits: bool = False,
        next_symbol_only: bool = False,
        raw_targets_only: bool = False,
        token_places: torch.Tensor | None = None,
        suffix_symbols: torch.Tensor | None = None,
        return_hidden: bool = False,
        cache: Any = None,
        **kwargs: Any,
    ) -> ProxyByteOutput:
        """Loss with labels, logits without; both in evaluation without gradients, for ``compute_metrics`` of a Trainer.

        Args:
            input_ids: symbols, shape ``(B, T)``.
            attention_mask: shape ``(B, S)``; leave it out for packed rows.
            position_ids: shape ``(B, T)``; a document begins where they restart; from ``attention_mask`` if absent.
            past_key_values: what earlier calls saw.
            inputs_embeds: shape ``(B, T, D)``, in place of ``input_ids``.
            labels: as ``input_ids``, ``IGNORE_INDEX`` where a position is no target; shifted here.
            use_cache: off by default with labels or position ids.
            logits_to_keep: how many last positions to return logits for (0: all), or their indices.
            num_items_in_batch: what the loss is divided by; the number of targets in this batch if absent.
            return_logits: by default without labels, and with ``config.logits_in_evaluation`` in such an evaluation.
            raw_symbols_only: compute the head's first 320 rows and give minus infinity to the others.
            return_head_logits: whether to return what heads 1 and up draft, at the positions of ``logits_to_keep``.
            next_symbol_only: leave heads 1 and up out of the loss, as evaluation does.
            raw_targets_only: the loss of the next symbol is over the head's first 320 rows, of which all labels are.
            token_places: rows and columns at which to return ``token_logits``, shape ``(2, E)``.
            suffix_symbols: what ``suffix_rows.look_up`` gives, shape ``(B, T)``; looked up here if absent.
            return_hidden: whether to return ``last_hidden_state`` at every position, for losses of a trainer's own.
            cache: ``past_key_values`` by the name that Transformers gives them from 5.24 on.
            **kwargs: passed on to the backbone.

        Raises:
            ProxyByteError: without input, if documents would see each other, or if there is no head to draft.
        """
        past_key_values, kwargs = _sort_caches(past_key_values, cache, kwargs)
        if use_cache is None and past_key_values is None and (labels is not None or position_ids is not None):
            use_cache = False
        length, caching = _length(input_ids, inputs_embeds), use_cache and past_key_values is None
        position_ids, attention_mask = lay_out_rows(position_ids, attention_mask, length, caching)
        given, seen = self._embed(input_ids, inputs_embeds, position_ids, past_key_values, suffix_symbols)
        layout = {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": use_cache}
        outputs = self.model(**given, **layout, **{CACHE: past_key_values}, **kwargs)
        targets = _Targets(labels, position_ids, num_items_in_batch, next_symbol_only, raw_targets_only)
        wanted = (logits_to_keep, return_logits, raw_symbols_only, return_head_logits, token_places, return_hidden)
        return self._output(outputs, seen, targets, _Wanted(*wanted))

    def _output(self, outputs: Any, seen: torch.Tensor | None, targets: _Targets, wanted: _Wanted) -> ProxyByteOutput:
        """Losses and logits from what the decoder returns, whose cache is to carry the symbols ``seen``."""
        note_symbols(outputs.get(CACHE), seen)
        hidden, keep = outputs.last_hidden_state, wanted.logits_to_keep
        kept = hidden[:, -keep:] if isinstance(keep, int) else hidden[:, keep]
        fields: dict[str, Any] = {n: outputs.get(n) for n in (CACHE, "hidden_states", "attentions")}
        if targets.labels is not None:
            fields |= self._loss(hidden, targets, targets.labels)
        if self._gives_logits(targets, wanted):
            fields |= {"logits": self._logits(kept, wanted.raw_symbols_only), "last_hidden_state": kept}
        if wanted.token_places is not None:
            fields["token_logits"] = self._logits(hidden[tuple(wanted.token_places)], False)[:, COMPRESSED_OFFSET:]
        if wanted.hidden:
            fields["last_hidden_state"] = hidden
        fields["head_logits"] = self.head_logits(kept) if wanted.head_logits else None
        return ProxyByteOutput(**fields)

    def _gives_logits(self, targets: _Targets, wanted: _Wanted) -> bool:
        if wanted.logits is not None:
            return wanted.logits
        evaluating = self.config.logits_in_evaluation and not (self.training or torch.is_grad_enabled())
        return targets.labels is None or evaluating

    def _embed(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        cache: Cache | None,
        suffixes: torch.Tensor | None,
    ) -> tuple[dict[str, torch.Tensor | None], torch.Tensor | None]:
        """What the decoder is to read, suffix rows in it, and the symbols that its cache is to carry."""
        if input_ids is None or not self.reads_suffixes:
            return {"input_ids": input_ids, "inputs_embeds": inputs_embeds}, None
        embedding = self.get_input_embeddings()
        mixed, seen = self.suffix_rows.read(embedding, input_ids, position_ids, cache, suffixes)
        return {"inputs_embeds": mixed}, seen

    def add_suffix_rows(self, table: SuffixTable, mix: float) -> None:
        """Read bytes with the rows of the tokens that end there from now on; a table that is there is replaced."""
        self.config.suffix_rows = SuffixRowsConfig(nodes=len(table.symbols), longest=table.longest, mix=mix)
        self.suffix_rows = SuffixRows(self.config.suffix_rows)
        self.suffix_rows.fill(table)
        self.suffix_rows.to(self.device)

    def add_hashed_suffix_rows(self, length: int, mix: float) -> None:
        """Read bytes with the row that the last ``length`` of them are hashed to, among those of compressed symbols."""
        section = SuffixRowsConfig(longest=length, hashed=int(self.config.num_compressed_symbols or 0), mix=mix)
        self.config.suffix_rows = section
        self.suffix_rows = SuffixRows(section).to(self.device)

    def _stacked_heads(self) -> list[tuple[nn.Module, int]]:
        """The heads after ``lm_head``, in order: each matrix and how many heads are stacked in it."""
        config = self.config
        counts = {"pred_heads": config.num_pred_heads - 1, "raw_pred_heads": config.num_raw_pred_heads}
        return [(getattr(self, name), count) for name, count in counts.items() if count]

    def _loss(self, hidden: torch.Tensor, wanted: _Targets, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The fields of the output that labels give."""
        labels = labels.to(hidden.device)
        stacked = [] if wanted.next_symbol_only else self._stacked_heads()
        heads = [(self.lm_head, 1), *stacked]
        full = self.config.num_pred_heads if stacked else 1
        targets = head_targets(labels, wanted.position_ids, full, sum(count for _, count in heads) - full)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weights = head_weights(targets, wide) if stacked else None
        losses: list[HeadLoss] = []
        first = 0
        for head, count in heads:
            part = slice(first, first + count)
            mine = None if weights is None else weights[part].flatten(1)
            flat = hidden.flatten(0, 1), targets[part].flatten(1)
            cap = self._logit_cap if head is self.lm_head else None
            if wanted.raw_only and head is self.lm_head:
                head = self._raw_rows
            losses.append(head_loss(head, *flat, self.config.loss_chunk_size, mine, cap))
            first += count
        num_items = wanted.num_items
        if num_items is None:
            num_items = targets[0].ne(IGNORE_INDEX).sum()
        total = torch.stack([loss.total for loss in losses]).sum()
        nll = torch.cat([loss.nll for loss in losses]).view(targets.shape)
        fields = {"loss": mean_loss(total, num_items), "target_nll": nll[0, :, :-1]}
        if stacked:
            fields["head_nll"] = nll.sum(dim=2).T
            fields["head_targets"] = targets.ne(IGNORE_INDEX).sum(dim=2).T
        return fields

    def _logits(self, hidden: torch.Tensor, raw_symbols_only: bool) -> torch.Tensor:
        """Logits ``(B, K, V)`` of ``hidden`` ``(B, K, D)``."""
        if not raw_symbols_only:
            return soft_cap(self.lm_head(hidden), self._logit_cap)
        padding = (0, self.config.vocab_size - COMPRESSED_OFFSET)
        return F.pad(soft_cap(self._raw_rows(hidden), self._logit_cap), padding, value=-torch.inf)

    def _raw_rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """The head's first 320 rows on ``hidden``, before any cap."""
        if is_plain_linear(self.lm_head):
            return F.linear(hidden, self.lm_head.weight[:COMPRESSED_OFFSET])
        return self.lm_head(hidden)[..., :COMPRESSED_OFFSET]

    @property
    def _logit_cap(self) -> float | None:
        """Bound of ``lm_head``'s logits (Gemma 2); not in the head itself, whose place an adapter may take."""
        return getattr(self.config.backbone_config, "final_logit_softcapping", None)

    def head_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Drafts ``(B, K, n - 1 + m, 320)`` of heads 1 and up from last hidden states ``(B, K, D)``.

        Raises:
            ProxyByteError: if there is no such head.
        """
        stacked = self._stacked_heads()
        if not stacked:
            raise ProxyByteError(
                "this model has one head and drafts nothing: build it with num_pred_heads or num_raw_pred_heads"
            )
        return torch.cat([draft_logits(head, hidden, count) for head, count in stacked], dim=2)

    def _init_weights(self, module: nn.Module) -> None:
        self.model._init_weights(module)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Embedding:
        """The embedding, whose size is fixed.

        Raises:
            ProxyByteError: if another size is asked for: ids are owned by the symbol layout.
        """
        if new_num_tokens not in (None, self.config.vocab_size) or args or kwargs.get("pad_to_multiple_of"):
            raise ProxyByteError(
                f"resize_token_embeddings: the vocabulary is fixed by the symbol layout to {self.config.vocab_size} "
                "rows, so a tokenizer takes no new token (use a spare one, such as <extra_id_19>); build a model with "
                "another num_compressed_symbols instead of resizing"
            )
        return self.get_input_embeddings()  # type: ignore[return-value]


def _length(input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> int:
    """Symbols of a row in whichever input is given."""
    given = input_ids if inputs_embeds is None else inputs_embeds
    if given is None:
        raise ProxyByteError("there is nothing to read: give input_ids or inputs_embeds")
    return given.shape[1]


def positions_from_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions that count attended symbols only, so that a left-padded row equals the row alone.

    Args:
        attention_mask: shape ``(B, S)``, nonzero where attended.

    Returns:
        Shape ``(B, S)``, 0 on padding.
    """
    attended = attention_mask.ne(0)
    return (attended.long().cumsum(-1) - 1).masked_fill(~attended, 0)


def holds_several_documents(position_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> bool:
    """Whether positions jump anywhere between two neighbours that are both attended.

    Args:
        position_ids: shape ``(B, T)``.
        attention_mask: shape ``(B, T)``, or ``None`` where everything is attended.
    """
    jumps = position_ids.diff(dim=-1) != 1
    if attention_mask is not None:
        attended = attention_mask.ne(0)
        jumps = jumps & attended[:, 1:] & attended[:, :-1]
    return bool(jumps.any())


def lay_out_rows(
    position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, length: int, use_cache: bool | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Positions and mask of ``length`` new symbols a row, such that no document sees another.

    Args:
        position_ids: shape ``(B, length)``, or ``None`` to follow from a two-dimensional mask.
        attention_mask: shape ``(B, S)``, or one that is ready for the backbone.
        length: symbols of a row that go through the backbone.
        use_cache: whether the backbone will keep a cache.

    Returns:
        Positions and mask to give to the backbone; packed rows lose a mask that hides nothing.

    Raises:
        ProxyByteError: if rows are packed and a cache or padding would let their documents see each other.
    """
    # Masks by layer type, in a dictionary, are ready for the backbone too.
    flat = attention_mask if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2 else None
    if position_ids is None:
        return (None if flat is None else positions_from_mask(flat)[:, -length:]), attention_mask
    # A mask over more than the new symbols belongs to a cache that is in use; one of four dimensions is the caller's
    # own. Values cannot steer a program while it is compiled.
    if flat is not None and flat.shape[1] != length:
        flat = None
    if torch.compiler.is_compiling() or not (use_cache or flat is not None):
        return position_ids, attention_mask
    if not holds_several_documents(position_ids, flat):
        return position_ids, attention_mask
    if use_cache:
        raise ProxyByteError(
            "position_ids hold several documents in a row, which a cache cannot keep apart: pass use_cache=False"
        )
    if flat is not None and not bool(flat.ne(0).all()):
        raise ProxyByteError(
            "position_ids hold several documents in a row and attention_mask hides symbols, so that documents would "
            "see each other: leave attention_mask out"
        )
    return position_ids, None


def _register() -> None:
    """Make the Auto classes know both, and let ``save_pretrained`` carry this code.

    A copy loaded from the Hub does not register itself: it must not take the place of the installed package.
    """
    ProxyByteConfig.register_for_auto_class()
    ProxyByteForCausalLM.register_for_auto_class("AutoModelForCausalLM")
    # Trainer shifts the labels of label smoothing for the classes that this table names, and for no other.
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[ProxyByteConfig.model_type] = ProxyByteForCausalLM.__name__
    if not __name__.startswith("transformers_modules."):
        AutoConfig.register(ProxyByteConfig.model_type, ProxyByteConfig, exist_ok=True)
        AutoModel.register(ProxyByteConfig, ProxyByteForCausalLM, exist_ok=True)
        AutoModelForCausalLM.register(ProxyByteConfig, ProxyByteForCausalLM, exist_ok=True)


_register()
