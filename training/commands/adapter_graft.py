"""``proxybyte adapter graft``: add what an instruct model learnt beyond its base to a byte model of that base."""

import argparse
import shlex

from proxybyte import numbers
from proxybyte.artefacts import MODEL_HELP, find_model
from proxybyte.cli import Command

EXAMPLES = """\
  proxybyte adapter graft runs/smol --base SmolLM2-135M --instruct SmolLM2-135M-Instruct --out smol-chat
  proxybyte adapter graft smol --base base/ --instruct instruct/ --scale 0.7 --out smol-chat

Task arithmetic (arXiv 2212.04089): weights + scale * (instruct - base). Nothing is trained."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=numbers.path_or_name, metavar="MODEL", help=f"{MODEL_HELP}, byteified from BASE")
    base = "the tokenizer model that it was made of: a Hub name, a folder, or a GGUF file"
    parser.add_argument("--base", type=numbers.path_or_name, required=True, metavar="BASE", help=base)
    parser.add_argument(
        "--instruct", type=numbers.path_or_name, required=True, metavar="MODEL", help="the model tuned from BASE"
    )
    parser.add_argument("--scale", type=numbers.real(0, 100), default=1.0, help="of the difference (default: 1)")
    parser.add_argument("--out", type=numbers.path, required=True, metavar="FOLDER", help="model folder to write")


def _run(args: argparse.Namespace) -> None:
    from proxybyte.training.byteify import find_base

    find_model(args.model)  # all three before torch is waited for
    find_base(args.base)
    find_base(args.instruct)
    from proxybyte.training.byteify.graft import graft

    done = graft(args.model, args.base, args.instruct, args.out, args.scale)
    print(f"{done.weights} weights and {done.rows:,} rows moved, by {done.moved:.2%} of their norm")
    print(f"written to {args.out}")
    print(f"next: proxybyte export {shlex.quote(str(args.out))} --format native --chat --out FOLDER")


COMMAND = Command("add what an instruct model learnt beyond its base to a byte model", EXAMPLES, _add_arguments, _run)
