"""``proxybyte launch config``: where a shipped configuration for ``accelerate launch`` lies."""

import argparse

from proxybyte.cli import Command

from ..launching import launch_config, launch_configs

EXAMPLES = """\
  proxybyte launch config
  proxybyte launch config 8-gpus
  accelerate launch --config_file "$(proxybyte launch config 8-gpus)" -m proxybyte.training.train --config my.yaml"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="of a configuration, whose path is printed (default: list them)")


def _run(args: argparse.Namespace) -> None:
    if args.name is not None:
        print(launch_config(args.name))
        return
    for name, what in launch_configs().items():
        print(f"{name:<10} {what}")


COMMAND = Command("where a configuration for 'accelerate launch' lies", EXAMPLES, _add_arguments, _run)
