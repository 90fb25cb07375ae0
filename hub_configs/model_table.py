"""A model's shape and cost as rows of a table, from its configuration alone."""

from pathlib import Path
from typing import TYPE_CHECKING

from proxybyte.errors import ProxyByteError
from proxybyte.faults import loading

if TYPE_CHECKING:
    from proxybyte import ProxyByteConfig

Rows = list[tuple[str, str]]


def read_shape(folder: Path) -> "ProxyByteConfig":
    """Configuration in a model folder; of a native export, one of ours around it.

    Raises:
        ProxyByteError: if it cannot be read, or is of a model with other symbols.
    """
    from proxybyte import ProxyByteConfig
    from proxybyte.symbols import NUM_RAW_SYMBOLS

    with loading(folder, "configuration"):
        settings, _ = ProxyByteConfig.get_config_dict(folder)
        if settings.get("model_type") == ProxyByteConfig.model_type:
            return ProxyByteConfig.from_dict(settings)
        if settings.get("vocab_size") == NUM_RAW_SYMBOLS:  # a native export: the backbone alone
            return ProxyByteConfig(backbone_config=settings, num_compressed_symbols=0)
        raise ProxyByteError(f"{folder} holds a {settings.get('model_type')!r} model, not a 'proxybyte' one")


def shape_rows(config: "ProxyByteConfig") -> Rows:
    """Decoder, parameters, heads and symbols."""
    import torch

    from proxybyte import ProxyByteForCausalLM
    from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_SPECIALS

    with torch.device("meta"):
        model = ProxyByteForCausalLM(config)
    ends = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    total = sum(weight.numel() for weight in model.parameters())
    heads = config.num_attention_heads
    further = sum(weight.numel() for name, weight in model.named_parameters() if "pred_heads." in name)
    more = [] if not further else [("  heads that predict further", f"{further:,}")]
    compressed = f"{COMPRESSED_OFFSET} to {config.vocab_size - 1}" if config.num_compressed_symbols else "none"
    return [
        ("backbone", config.backbone_config.model_type),
        ("layers x hidden size", f"{config.num_hidden_layers} x {config.hidden_size}"),
        ("attention heads (key/value)", f"{heads} ({getattr(config, 'num_key_value_heads', None) or heads})"),
        ("parameters", f"{total:,}"),
        ("  embedding and head", f"{ends:,}{' (tied)' if config.tie_word_embeddings else ''}"),
        *more,
        ("  the rest", f"{total - ends - further:,}"),
        ("symbols", f"{config.vocab_size:,}"),
        ("  specials", f"0 to {NUM_SPECIALS - 1}"),
        ("  bytes", f"{BYTE_OFFSET} to {COMPRESSED_OFFSET - 1}"),
        ("  compressed", compressed),
    ]


def cost_rows(config: "ProxyByteConfig", length: int) -> Rows:
    """FLOPs of a symbol in a document of ``length`` symbols."""
    from proxybyte.flops import symbol_flops

    flops = symbol_flops(config, length)
    further = config.num_pred_heads > 1 or config.num_raw_pred_heads
    drafting = [("  with drafts of all heads", f"{flops.drafting:.4g}")] if further else []
    return [
        ("forward FLOPs a symbol", f"{flops.forward:.4g}"),
        (f"  attention, {length} symbols", f"{flops.attention:.4g}"),
        *drafting,
        ("training FLOPs a symbol", f"{flops.training:.4g}"),
    ]
