"""``proxybyte adapter merge``: write a model with an adapter merged into its weights."""

import argparse
import shlex

from proxybyte import numbers
from proxybyte.artefacts import check_adapter, find_model
from proxybyte.cli import Command

EXAMPLES = """\
  proxybyte adapter merge smol runs/smol/adapter --out smol-merged"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "base", type=numbers.path, metavar="FOLDER", help="the model folder that the adapter was trained on"
    )
    parser.add_argument("adapter", type=numbers.path, metavar="ADAPTER", help="folder with adapter_config.json")
    parser.add_argument("--out", type=numbers.path, required=True, metavar="FOLDER", help="model folder to write")


def _run(args: argparse.Namespace) -> None:
    check_adapter(args.adapter)
    find_model(args.base)  # both before torch is waited for
    from proxybyte.training.run.adapters import write_merged

    write_merged(args.base, args.adapter, args.out)
    print(f"written to {args.out}")
    print(f"next: proxybyte export {shlex.quote(str(args.out))} --format native --out FOLDER")


COMMAND = Command("merge a LoRA or DoRA adapter into a model's weights", EXAMPLES, _add_arguments, _run)
