"""What ``proxybyte train`` and ``python -m proxybyte.training.train`` take on the command line."""

import argparse

from proxybyte import numbers

EXAMPLES = """\
  proxybyte train --config quickstart
  proxybyte train --config my.yaml output=runs/a optimizer.lr=3e-4
  proxybyte train --config my.yaml --dry-run
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
    parser.add_argument("--dry-run", action="store_true", help="say what the run would do and stop")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes to the recipe")
