"""What ``proxybyte train`` and ``python -m proxybyte.training.train`` take on the command line."""

import argparse

from proxybyte import numbers
from proxybyte.cli import Parser

EXAMPLES = """\
  proxybyte train --config quickstart
  proxybyte train --config my.yaml output=runs/a optimizer.lr=3e-4
  proxybyte train --config my.yaml --dry-run --time
  proxybyte train --config my.yaml optimizer.lr=1e-3 --print-config > next.yaml
on several processes:
  torchrun --nproc-per-node 2 -m proxybyte.training.train --config my.yaml
  accelerate launch --num_processes 8 -m proxybyte.training.train --config my.yaml compute.parallel=fsdp"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--config",
        required=True,
        type=numbers.path_or_name,
        metavar="RECIPE",
        help="a YAML recipe, or the name of a shipped one",
    )
    parser.add_argument("--dry-run", action="store_true", help="check all, say what the run would be, and stop")
    parser.add_argument("--time", action="store_true", help="with --dry-run: take two steps and say how long all take")
    parser.add_argument("--print-config", action="store_true", help="write the whole recipe as YAML and stop")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes to the recipe")
    if isinstance(parser, Parser):
        parser.details = _keys


def _keys() -> str:
    from .config_io import key_table

    return key_table()
