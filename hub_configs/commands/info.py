"""``proxybyte info``: what a model of a size, or in a folder, holds and costs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.faults import loading

if TYPE_CHECKING:
    from proxybyte import ProxyByteConfig
    from proxybyte.hub_configs import Preset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        type=numbers.path_or_name,
        help="a preset's name or a model folder (default: list the presets)",
    )
    parser.add_argument(
        "--compressed",
        type=numbers.whole(0, numbers.LARGEST_VOCABULARY),
        default=65_536,
        metavar="N",
        help="symbols of a preset's compressor (default: %(default)s)",
    )
    parser.add_argument(
        "--heads",
        type=numbers.whole(1, 1 << 10),
        default=1,
        metavar="N",
        help="a preset's heads over all symbols, the next symbol's among them (default: %(default)s)",
    )
    parser.add_argument(
        "--raw-heads",
        type=numbers.whole(0, 1 << 10),
        default=0,
        metavar="M",
        help="a preset's heads over the raw symbols, after those (default: %(default)s)",
    )
    parser.add_argument(
        "--length",
        type=numbers.count,
        default=4096,
        help="symbols of a document, for attention's FLOPs (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Print the list of presets, or one model's table."""
    from proxybyte.hub_configs import load_preset, preset_names

    if args.model is None:
        for preset in map(load_preset, preset_names()):
            print(f"{preset.name:<12} {preset.summary}")
    elif Path(args.model).is_dir():
        _print_table(_table(_config_of(Path(args.model)), args.length))
    else:
        preset = load_preset(args.model)
        heads: dict[str, Any] = {"num_pred_heads": args.heads, "num_raw_pred_heads": args.raw_heads}
        rows = _table(preset.config(args.compressed, **heads), args.length)
        _print_table([*rows, *_training_rows(preset)])


def _config_of(folder: Path) -> "ProxyByteConfig":
    from proxybyte import ProxyByteConfig

    if not (folder / "config.json").is_file():
        raise ProxyByteError(f"{folder} is no model folder: it has no config.json")
    with loading(folder, "configuration"):
        settings, _ = ProxyByteConfig.get_config_dict(folder)
        if settings.get("model_type") != ProxyByteConfig.model_type:
            raise ProxyByteError(f"{folder} holds a {settings.get('model_type')!r} model, not a 'proxybyte' one")
        return ProxyByteConfig.from_dict(settings)


def _table(config: "ProxyByteConfig", length: int) -> list[tuple[str, str]]:
    import torch

    from proxybyte import ProxyByteForCausalLM
    from proxybyte.flops import symbol_flops
    from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_SPECIALS

    with torch.device("meta"):
        model = ProxyByteForCausalLM(config)
    flops = symbol_flops(config, length)
    ends = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    total = sum(weight.numel() for weight in model.parameters())
    heads = config.num_attention_heads
    further = sum(weight.numel() for name, weight in model.named_parameters() if "pred_heads." in name)
    more = [] if not further else [("  heads that predict further", f"{further:,}")]
    drafting = [] if not further else [("  with drafts of all heads", f"{flops.drafting:.4g}")]
    compressed = f"{COMPRESSED_OFFSET} to {config.vocab_size - 1}" if config.num_compressed_symbols else "none"
    return [
        ("backbone", config.backbone_config.model_type),
        ("layers x hidden size", f"{config.num_hidden_layers} x {config.hidden_size}"),
        (
            "attention heads (key/value)",
            f"{heads} ({getattr(config, 'num_key_value_heads', None) or heads})",
        ),
        ("parameters", f"{total:,}"),
        ("  embedding and head", f"{ends:,}{' (tied)' if config.tie_word_embeddings else ''}"),
        *more,
        ("  the rest", f"{total - ends - further:,}"),
        ("symbols", f"{config.vocab_size:,}"),
        ("  specials", f"0 to {NUM_SPECIALS - 1}"),
        ("  bytes", f"{BYTE_OFFSET} to {COMPRESSED_OFFSET - 1}"),
        ("  compressed", compressed),
        ("forward FLOPs a symbol", f"{flops.forward:.4g}"),
        (f"  attention, {length} symbols", f"{flops.attention:.4g}"),
        *drafting,
        ("training FLOPs a symbol", f"{flops.training:.4g}"),
    ]


def _training_rows(preset: "Preset") -> list[tuple[str, str]]:
    """What 'proxybyte train' takes from the preset where recipe and command line are silent."""
    keys = [
        (f"  {section}.{key}", value) for section, values in preset.training.items() for key, value in values.items()
    ]
    shown = [(key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)) for key, value in keys]
    return [("training, unless a recipe says otherwise", ""), *shown]


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


COMMAND = Command(
    summary="parameters, FLOPs and symbols of a model size or a model folder",
    examples="  proxybyte info\n  proxybyte info 1.5b-llama --compressed 65536 --heads 8\n"
    "  proxybyte info runs/quickstart/model",
    add_arguments=add_arguments,
    run=run,
)
