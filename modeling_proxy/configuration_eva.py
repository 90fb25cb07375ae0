"""Configuration of the EVA backbone."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .errors import ProxyByteError

EVA_LAYER = "eva_attention"
"""Layer type under which Transformers' caches find the decoding cache of this backbone."""


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
