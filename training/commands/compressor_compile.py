"""``proxybyte compressor compile M1``: the neural compressor's model as a table that needs no model."""

import argparse
import shlex

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.folders import output_folder
from proxybyte.training.compressors.codebook_compile import COMPILER
from proxybyte.training.compressors.protocol import output_kind


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    COMPILER.add_arguments(parser)
    parser.add_argument("--out", type=numbers.path, required=True, metavar="FOLDER", help="where to save the codebook")


def _run(args: argparse.Namespace) -> None:
    with output_folder(args.out, output_kind("codebook")):
        print(COMPILER.fit(args))
    print(f"saved to {args.out}")
    if args.picture:
        print(f"drawn in {args.picture}")
    print(f"next: proxybyte prepare CORPUS --compressor {shlex.quote(str(args.out))} --out FOLDER")


COMMAND = Command(COMPILER.summary, COMPILER.examples, _add_arguments, _run)
