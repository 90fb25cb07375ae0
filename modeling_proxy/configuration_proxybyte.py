"""Configuration of a ProxyByte model, any Transformers decoder under our vocabulary, and of the EVA backbone."""

import copy
import dataclasses
from typing import Any

import transformers

OLDEST_TRANSFORMERS = (5, 14)
"""Older ones lack what the model is built from, and do not fetch all of an export's code files."""
if tuple(map(int, transformers.__version__.split(".")[:2])) < OLDEST_TRANSFORMERS:
    # Before anything is imported that an old version does not have.
    raise ImportError(
        f"this model's code needs Transformers {'.'.join(map(str, OLDEST_TRANSFORMERS))} or newer and finds "
        f"{transformers.__version__}: pip install --upgrade transformers (a native export runs from 4.57)"
    )

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING

from .errors import ProxyByteError, nearest
from .suffix_rows import SuffixRowsConfig
from .symbols import COMPRESSED_OFFSET, DocumentOpening, Special

EVA_LAYER = "eva_attention"
"""Layer type under which Transformers' caches find the decoding cache of this backbone."""

ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention", EVA_LAYER})
"""Layer types that keep packed documents apart from ``position_ids`` alone; the others carry a state across."""

DELEGATED = frozenset(
    {
        "attention_bias",
        "attention_chunk_size",
        "attention_dropout",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "hidden_act",
        "hidden_activation",
        "mlp_bias",
        "query_pre_attn_scalar",
        "rms_norm_eps",
        "head_dim",
        "hidden_size",
        "initializer_range",
        "intermediate_size",
        "kv_sharing_modes",
        "layer_types",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "num_kv_shared_layers",
        "sliding_window",
        "vocab_size",
    }
)
"""Shapes that caches and other tools read from a model's configuration; they live in ``backbone_config`` alone."""

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")
"""Those that tools (PEFT's prompt learning) look for in the dictionary of a configuration."""

EMBEDDINGS = {"gpt2": "wte"}
"""Name of the embedding in families that do not call it ``embed_tokens``; theirs is no native export."""

_AFTER_THE_HEAD = {"logit_scale": 1.0, "logits_scaling": 1.0}
"""Settings by which a few families change their logits after the head, and the value that changes nothing."""


class EvaConfig(PreTrainedConfig):
    """What an :class:`EvaModel` is built from. The defaults are the published 500M model.

    Attributes:
        vocab_size: rows of the embedding.
        hidden_size: width of the residual stream.
        intermediate_size: width of the gated MLP.
        num_hidden_layers: decoder layers.
        num_attention_heads: heads.
        num_key_value_heads: as many; each head has its own keys and values.
        head_dim: width of a head; ``hidden_size / num_attention_heads``, whatever is given.
        window_size: positions of an exact window; a multiple of ``chunk_size``.
        chunk_size: positions that one summary stands for, 8 or 16 in published models.
        cache_rollback: how many of the last symbols a decoding cache can drop again whatever the border between;
            speculative decoding needs as many as it drafts.
        initializer_range: standard deviation of fresh linear weights.
        embedding_initializer_range: standard deviation of a fresh embedding.
        rms_norm_eps: added to the mean square.
        rope_parameters: as in Transformers; the base is 100,000 if absent.
        max_position_embeddings: positions the model is meant for; nothing depends on it unless RoPE is scaled.

    Raises:
        ProxyByteError: if window and chunk, or width and heads, do not divide.
    """

    model_type = "proxybyte_eva"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]
    default_theta = 100_000.0

    vocab_size: int = 320
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 28
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    head_dim: int = 0
    hidden_act: str = "silu"
    window_size: int = 2048
    chunk_size: int = 8
    cache_rollback: int = 256
    initializer_range: float = 0.02
    embedding_initializer_range: float = 1.0
    rms_norm_eps: float = 1e-5
    rope_parameters: dict[str, Any] | None = None
    max_position_embeddings: int = 32_768
    use_cache: bool = True
    layer_types: list[str] | None = None
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("window_size", "chunk_size", "cache_rollback", "hidden_size", "num_attention_heads"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ProxyByteError(f"{name} is {getattr(self, name)!r}: give a whole number of at least 1")
        if self.window_size % self.chunk_size:
            raise ProxyByteError(f"window_size {self.window_size} must be a multiple of chunk_size {self.chunk_size}")
        if self.hidden_size % self.num_attention_heads or (self.hidden_size // self.num_attention_heads) % 2:
            raise ProxyByteError(
                f"hidden_size {self.hidden_size} must be an even multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.num_key_value_heads not in (None, self.num_attention_heads):
            raise ProxyByteError(
                f"num_key_value_heads is {self.num_key_value_heads}, but EVA has keys and values for each of its "
                f"{self.num_attention_heads} heads: leave it out"
            )
        self.num_key_value_heads = self.num_attention_heads
        self.head_dim = self.hidden_size // self.num_attention_heads
        self.layer_types = [EVA_LAYER] * self.num_hidden_layers
        super().__post_init__(**kwargs)

    def validate(self) -> None:
        """Transformers' checks; see :func:`validate_but_layer_types`."""
        validate_but_layer_types(self)


def validate_but_layer_types(config: PreTrainedConfig) -> None:
    """Transformers' checks of ``config`` but that of layer types, because its list of those cannot be added to."""
    for check in config.__class_validators__:
        if check.__name__ != "validate_layer_type":
            check(config)


# A copy loaded from the Hub must not take the place of the installed package.
if EvaConfig.model_type not in CONFIG_MAPPING or not __name__.startswith("transformers_modules."):
    AutoConfig.register(EvaConfig.model_type, EvaConfig, exist_ok=True)


class ProxyByteConfig(PreTrainedConfig):
    """What a :class:`ProxyByteForCausalLM` is built from.

    Shapes (``hidden_size``, ``num_hidden_layers``, ``vocab_size``, ...) are read from and written to the backbone's
    configuration, so that the two never disagree.

    Attributes:
        backbone_config: configuration of the decoder, as an object (it is copied) or a dictionary with
            ``model_type``; Llama's defaults if absent. Its vocabulary is set to ours.
        num_compressed_symbols: symbols of the compressor; the vocabulary has 320 more. It may be given as
            ``vocab_size`` instead.
        document_opening: how a document opens, a :class:`DocumentOpening` (``<raw>``, ``<bos><raw>`` or ``<bos>``);
            :func:`document_opening` reads it. Folders of earlier versions say ``document_prefix`` (true:
            ``<bos><raw>``) or, converted from EvaByte, ``bos_token_id`` 1 (``<bos>``).
        tie_word_embeddings: whether the head shares the embedding's weight; the backbone's own setting if absent.
        loss_chunk_size: positions whose logits the training loss holds at once.
        logits_in_evaluation: whether logits come beside a loss in evaluation mode without gradients, as metrics of a
            Trainer need; off where all logits of a batch do not fit.
        num_pred_heads: heads over all symbols; head 0, ``lm_head``, predicts the next symbol, head h the one h further.
        num_raw_pred_heads: heads after those over the 320 raw symbols alone.
        suffix_rows: section for reading each byte with the row of the longest token that ends there; none if absent.
        pad_token_id: ``<pad>``.
        bos_token_id: ``<raw>``, the symbol that begins a text.
        eos_token_id: ``<eos>``, the end of a document.

    Raises:
        ProxyByteError: if the backbone is unknown, no plain attention decoder, or has another vocabulary.
    """

    model_type = "proxybyte"
    sub_configs = {"backbone_config": AutoConfig, "suffix_rows": SuffixRowsConfig}
    keys_to_ignore_at_inference = [
        "past_key_values",
        "cache",
        "target_nll",
        "head_nll",
        "head_targets",
        "last_hidden_state",
    ]

    # Whatever was given, these are a configuration and a value of DocumentOpening once this one is built.
    backbone_config: Any = None
    num_compressed_symbols: int | None = None
    document_opening: Any = None
    tie_word_embeddings: bool | None = None
    loss_chunk_size: int = 512
    logits_in_evaluation: bool = True
    num_pred_heads: int = 1
    num_raw_pred_heads: int = 0
    # As above.
    suffix_rows: Any = None
    pad_token_id: int | None = int(Special.PAD)
    bos_token_id: int | None = int(Special.RAW_OPEN)
    eos_token_id: int | list[int] | None = int(Special.EOS)

    def __post_init__(self, **kwargs: Any) -> None:
        rows = kwargs.pop("vocab_size", None)
        self.document_opening = _opening(self.document_opening, kwargs.pop("document_prefix", None), self.bos_token_id)
        if self.num_compressed_symbols is None:
            _check_count("vocab_size", COMPRESSED_OFFSET if rows is None else rows, at_least=COMPRESSED_OFFSET)
            super().__setattr__("num_compressed_symbols", 0 if rows is None else rows - COMPRESSED_OFFSET)
        codes = _check_count("num_compressed_symbols", self.num_compressed_symbols, at_least=0)
        _check_count("loss_chunk_size", self.loss_chunk_size, at_least=1)
        _check_count("num_pred_heads", self.num_pred_heads, at_least=1)
        _check_count("num_raw_pred_heads", self.num_raw_pred_heads, at_least=0)
        self.suffix_rows = SuffixRowsConfig.of(self.suffix_rows)
        vocab_size = COMPRESSED_OFFSET + codes
        _check_vocabulary(vocab_size if rows is None else rows, vocab_size, "vocab_size")
        sizes = {name: kwargs.pop(name) for name in _SIZES if name in kwargs}
        if misplaced := sorted(DELEGATED & kwargs.keys()):
            raise ProxyByteError(f"{misplaced[0]!r} is a setting of the decoder: put it into backbone_config")
        token_ids = {name: getattr(self, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        backbone = _build_backbone(self.backbone_config, vocab_size, token_ids)
        if self.tie_word_embeddings is None:
            super().__setattr__("tie_word_embeddings", bool(getattr(backbone, "tie_word_embeddings", False)))
        backbone.tie_word_embeddings = self.tie_word_embeddings
        for name, value in sizes.items():
            # The dictionary of a configuration repeats them.
            if value != getattr(backbone, name, None):
                raise ProxyByteError(f"{name!r} is a setting of the decoder: put it into backbone_config")
        self.backbone_config = backbone
        check_backbone(backbone)
        super().__post_init__(**kwargs)

    def __getattr__(self, name: str) -> Any:
        backbone = self.__dict__.get("backbone_config")
        if name in DELEGATED and isinstance(backbone, PreTrainedConfig):
            return getattr(backbone, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        # Not while it is built, when the decoder's configuration is still the caller's own.
        backbone = self.__dict__.get("backbone_config") if name in self.__dict__ or name == "vocab_size" else None
        if name in DELEGATED:
            setattr(self.backbone_config, name, value)
        else:
            super().__setattr__(name, value)
        if isinstance(backbone, PreTrainedConfig):
            # One fact in two places: they change together.
            if name == "tie_word_embeddings":
                backbone.tie_word_embeddings = value
            elif name == "num_compressed_symbols":
                backbone.vocab_size = COMPRESSED_OFFSET + value
            elif name == "vocab_size":
                super().__setattr__("num_compressed_symbols", value - COMPRESSED_OFFSET)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As Transformers', with every setting of ``kwargs`` checked as one that the dictionary holds.

        Raises:
            ProxyByteError: also if one contradicts what weights beside the dictionary are made for: their rows, or
                whether the head has weights of its own.
        """
        stored = cls(**copy.deepcopy(config_dict))
        for name in ("num_compressed_symbols", "vocab_size", "tie_word_embeddings"):
            value = kwargs.pop(name, None)
            if value is not None and value != getattr(stored, name):
                raise ProxyByteError(
                    f"{name}={value!r} contradicts the configuration, which has {getattr(stored, name)!r}: leave it "
                    "out, or build a new model"
                )
        if "document_prefix" in kwargs or "document_opening" in kwargs:
            config_dict = {key: one for key, one in config_dict.items() if not key.startswith("document_")}
        own = _defaults(cls).keys() - {"backbone_config", *_defaults(PreTrainedConfig)}
        given = {name: kwargs.pop(name) for name in ("document_prefix", *own) if name in kwargs}
        return super().from_dict({**config_dict, **given}, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """All settings, and the decoder's sizes again, which tools look for there."""
        sizes = {name: getattr(self, name, None) for name in _SIZES}
        return {**super().to_dict(), **{name: size for name, size in sizes.items() if size is not None}}

    def to_diff_dict(self) -> dict[str, Any]:
        """What ``config.json`` holds: the decoder's sizes stand in ``backbone_config`` alone."""
        return {name: value for name, value in super().to_diff_dict().items() if name not in _SIZES}

    def validate(self) -> None:
        """Transformers' checks, the layer types being the backbone's."""
        if isinstance(self.backbone_config, EvaConfig):
            validate_but_layer_types(self)
        else:
            super().validate()  # type: ignore[misc]


def check_backbone(backbone: PreTrainedConfig) -> None:
    """Refuse a backbone that ProxyByte cannot train or decode correctly.

    Raises:
        ProxyByteError: with what stands in the way and what to do.
    """
    kind = backbone.model_type
    model_class = _model_class(backbone)
    native = type(backbone).__module__.startswith("transformers.")
    encoder = backbone.is_encoder_decoder or getattr(backbone, "is_decoder", True) is False
    prefix = getattr(model_class, "base_model_prefix", "model")
    foreign = set(getattr(backbone, "layer_types", None) or ()) - ATTENTION_LAYERS
    if foreign or getattr(model_class, "_is_stateful", False):
        raise ProxyByteError(
            f"backbone {kind!r} carries a state along the sequence, which leaks between packed documents: "
            "choose an attention decoder such as 'llama' or 'qwen3'"
        )
    decoder = not encoder and (not native or kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if not decoder or (prefix != "model" and kind not in EMBEDDINGS) or backbone.get_text_config() is not backbone:
        raise ProxyByteError(
            f"backbone {kind!r} is no text decoder that Transformers keeps under the name 'model': "
            "choose one such as 'llama' or 'qwen3'"
        )
    for name, neutral in _AFTER_THE_HEAD.items():
        if getattr(backbone, name, neutral) not in (neutral, None):
            raise ProxyByteError(f"backbone {kind!r} changes its logits by {name!r}: set it to {neutral}")
    if getattr(backbone, "output_router_logits", False):
        raise ProxyByteError(f"backbone {kind!r} asks for a router loss: set 'output_router_logits' to false")


def _opening(given: Any, prefix: bool | None, bos: int | None) -> str:
    """The value of ``document_opening``, from what the caller or a folder of an earlier version says."""
    if given is None:
        if prefix:
            return DocumentOpening.BOS_RAW.value
        return (DocumentOpening.BOS if bos == Special.BOS else DocumentOpening.RAW).value
    if given not in list(DocumentOpening):
        raise ProxyByteError(f"document_opening is {given!r}: give one of {', '.join(DocumentOpening)}")
    if prefix is not None and prefix is not (given == DocumentOpening.BOS_RAW):
        raise ProxyByteError(f"document_opening is {given!r} and document_prefix {prefix}: leave document_prefix out")
    return DocumentOpening(given).value


def _build_backbone(given: Any, vocab_size: int, token_ids: dict[str, Any]) -> PreTrainedConfig:
    """A configuration of our own, with our vocabulary and special symbols, from what the caller gave."""
    if isinstance(given, PreTrainedConfig):
        backbone = copy.deepcopy(given)
        # An object always has some vocabulary: only one that somebody chose can contradict ours.
        if getattr(backbone, "vocab_size", None) != _defaults(type(given)).get("vocab_size"):
            _check_vocabulary(backbone.vocab_size, vocab_size, "backbone_config.vocab_size")
        for name, value in {"vocab_size": vocab_size, **token_ids}.items():
            setattr(backbone, name, value)
        return backbone
    if given is not None and not isinstance(given, dict):
        raise ProxyByteError(f"backbone_config is a {type(given).__name__}: give a dictionary or a configuration")
    settings: dict[str, Any] = {"model_type": "llama"} if given is None else dict(given)
    kind = settings.pop("model_type", None)
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        near = nearest(str(kind), CONFIG_MAPPING.keys())
        hint = f"did you mean {near!r}?" if near else "give one that Transformers knows, such as 'llama'"
        raise ProxyByteError(f"backbone_config has the unknown model_type {kind!r}: {hint}")
    _check_vocabulary(settings.setdefault("vocab_size", vocab_size), vocab_size, "backbone_config.vocab_size")
    config_class = EvaConfig if kind == EvaConfig.model_type else CONFIG_MAPPING[kind]
    return config_class(**{**settings, **token_ids})


def _defaults(kind: type[PreTrainedConfig]) -> dict[str, Any]:
    """Settings of ``kind`` with a default, and that (5.14 has no ``default_config_fields`` yet)."""
    absent = (dataclasses.MISSING, None)
    return {field.name: field.default for field in dataclasses.fields(kind) if field.default not in absent}


def _model_class(backbone: PreTrainedConfig) -> type | None:
    """The decoder's class, ``None`` if it is not registered (yet): building the model will then say so."""
    try:
        found = MODEL_MAPPING[type(backbone)]
    except KeyError:
        return None
    return found[0] if isinstance(found, tuple) else found


def _check_count(name: str, value: Any, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ProxyByteError(f"{name} is {value!r}: give a whole number of at least {at_least}")
    return value


def _check_vocabulary(found: Any, expected: int, name: str) -> None:
    if found != expected:
        raise ProxyByteError(
            f"{name} is {found}, but {COMPRESSED_OFFSET} symbols and num_compressed_symbols = "
            f"{expected - COMPRESSED_OFFSET} make {expected}: leave {name} out or change num_compressed_symbols"
        )
