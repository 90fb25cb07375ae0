"""``proxybyte train``: the training loop in one process."""

import argparse

from proxybyte.artefacts import Split, check_split, find_model
from proxybyte.cli import Command
from proxybyte.training.run.options import EXAMPLES, add_arguments


def _run(args: argparse.Namespace) -> int:
    from proxybyte.training.run.config_io import load_config

    # A wrong key, and a folder that is not there, are refused before torch is waited for.
    config = load_config(args.config, args.overrides)
    if not args.print_config:
        if not config.data.is_file():  # of conversations
            check_split(config.data / Split.TRAIN)
        if config.model.checkpoint is not None and not config.output.exists():  # a run that is begun has its own
            find_model(config.model.checkpoint)
    from proxybyte.training.train import run

    return run(args)


COMMAND = Command("train a model from a recipe on prepared data", EXAMPLES, add_arguments, _run)
