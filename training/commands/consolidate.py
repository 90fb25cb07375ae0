"""``proxybyte consolidate``: the model of a checkpoint whose weights are in shards, whole."""

import argparse
import shlex
import shutil
from pathlib import Path

from proxybyte import numbers
from proxybyte.artefacts import COMPRESSOR_FOLDER, COMPRESSOR_MANIFEST
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.folders import whole_folder

EXAMPLES = """\
  proxybyte consolidate runs/a --out model
  proxybyte consolidate runs/a/checkpoints/step-00000500 --out model"""
_KIND = "consolidated model"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=numbers.path, metavar="RUN", help="a run, or one of its checkpoints")
    parser.add_argument("--out", type=numbers.path, required=True, metavar="FOLDER", help="model folder to write")


def _run(args: argparse.Namespace) -> None:
    if not args.checkpoint.is_dir():
        raise ProxyByteError(f"{args.checkpoint} is no folder: give a run, or one of its checkpoints")
    from ..run.checkpoint import CheckpointFolder, read_state, write_model

    if CheckpointFolder.has(args.checkpoint):
        found = CheckpointFolder(args.checkpoint, keep=1).latest()
        if found is None:
            raise ProxyByteError(f"no checkpoint in {args.checkpoint} is whole: train on, or give an older one")
        checkpoint, state = found
    else:
        checkpoint, state = args.checkpoint, read_state(args.checkpoint)
    with whole_folder(args.out, _KIND) as folder:
        write_model(checkpoint, folder)
        compressor = Path(str(state.config.get("data", ""))) / COMPRESSOR_FOLDER
        if (compressor / COMPRESSOR_MANIFEST).is_file():
            shutil.copytree(compressor, folder / COMPRESSOR_FOLDER)
    print(f"step {state.step} of {checkpoint} written to {args.out}")
    print(f"next: proxybyte export {shlex.quote(str(args.out))} --format native --out FOLDER")


COMMAND = Command("write the whole model of a checkpoint whose weights are in shards", EXAMPLES, _add_arguments, _run)
