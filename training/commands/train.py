"""``proxybyte train``: the training loop in one process."""

import argparse

from proxybyte.cli import Command
from proxybyte.training.run.options import EXAMPLES, add_arguments


def _run(args: argparse.Namespace) -> int:
    from proxybyte.training.run.config_io import load_config

    load_config(args.config, args.overrides)  # a wrong key is refused before torch is waited for
    from proxybyte.training.train import run

    return run(args)


COMMAND = Command("train a model from a recipe on prepared data", EXAMPLES, add_arguments, _run)
