"""``proxybyte info``: what a model of a size, or in a folder, holds and costs; ``inspect`` says where it is from."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxybyte import numbers
from proxybyte.artefacts import MODEL_HELP, find_model, is_hub_name
from proxybyte.cli import Command

if TYPE_CHECKING:
    from proxybyte.hub_configs import Preset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        type=numbers.path_or_name,
        help=f"a preset's name, or {MODEL_HELP} (default: list the presets)",
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
    elif Path(args.model).is_dir() or is_hub_name(args.model):
        folder = find_model(args.model).model
        from proxybyte.hub_configs.model_table import cost_rows, read_shape, shape_rows

        config = read_shape(folder)
        _print_table([*shape_rows(config), *cost_rows(config, args.length)])
    else:
        preset = load_preset(args.model)
        heads: dict[str, Any] = {"num_pred_heads": args.heads, "num_raw_pred_heads": args.raw_heads}
        config = preset.config(args.compressed, **heads)
        from proxybyte.hub_configs.model_table import cost_rows, shape_rows

        _print_table([*shape_rows(config), *cost_rows(config, args.length), *_training_rows(preset)])


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
