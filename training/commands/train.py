"""``proxybyte train``: the training loop in one process."""

import argparse

from proxybyte import numbers
from proxybyte.cli import Command

EXAMPLES = """\
  proxybyte train --config quickstart
  proxybyte train --config my.yaml output=runs/a optimizer.lr=3e-4
  proxybyte train --config my.yaml --dry-run
on several processes:
  torchrun --nproc-per-node 2 -m proxybyte.training.train --config my.yaml
  accelerate launch --num_processes 8 -m proxybyte.training.train --config my.yaml compute.parallel=fsdp"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        required=True,
        type=numbers.path_or_name,
        metavar="RECIPE",
        help="a YAML recipe, or the name of a shipped one",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what the run would do and stop")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes to the recipe")


def _run(args: argparse.Namespace) -> int:
    from proxybyte.training.train import run

    return run(args)


COMMAND = Command("train a model from a recipe on prepared data", EXAMPLES, _add_arguments, _run)
