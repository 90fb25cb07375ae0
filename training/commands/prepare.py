"""``proxybyte prepare``: encode a corpus into the two-view dataset that training reads."""

import argparse
import os
import shlex

from proxybyte import numbers
from proxybyte.cli import Command

EXAMPLES = """\
  proxybyte prepare corpus --compressor runs/bpe16k --out prepared
  proxybyte prepare corpus --compressor gzip --out prepared-gzip --workers 2 --verify sample
  accelerate launch --num_processes 8 -m proxybyte.cli prepare corpus --compressor runs/m1 --out prepared-neural
  torchrun --nproc-per-node 8 -m proxybyte.cli prepare corpus --compressor runs/m1 --out prepared-neural

An interrupted run goes on where it stopped. A finished output is left alone while corpus, compressor and options are
the same, and replaced when they are not. What the compressor cannot code is shown in its raw view alone, and counted
by reason. Under a launcher its processes share the work, each on its own device; the output is the same."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``proxybyte prepare``."""
    parser.add_argument("corpus", type=numbers.path, metavar="CORPUS", help="a folder that 'proxybyte corpus' wrote")
    parser.add_argument(
        "--compressor",
        required=True,
        type=numbers.path_or_name,
        metavar="NAME_OR_FOLDER",
        help="a compressor's name, or its saved folder",
    )
    parser.add_argument("--out", type=numbers.path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--workers",
        type=numbers.processes,
        default=0,
        metavar="N",
        help="processes (default: one a core, where the text is worth it)",
    )
    parser.add_argument(
        "--verify",
        choices=["all", "sample", "none"],
        default="all",
        help="decode each document, or one in 16, and compare; one that differs has no code (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Prepare, and print the totals."""
    from proxybyte.training.prepare import PrepareOptions, Verify, prepare_corpus

    options = PrepareOptions(args.corpus, args.compressor, args.out, args.workers, Verify(args.verify))
    manifest = prepare_corpus(options)
    if os.environ.get("RANK", "0") == "0":
        print(manifest)
        print(f"written to {args.out}")
        print(f"next: proxybyte train --config quickstart data={shlex.quote(str(args.out))} output=RUN --dry-run")


COMMAND = Command(
    summary="encode a corpus with a compressor into the dataset that training reads",
    examples=EXAMPLES,
    add_arguments=add_arguments,
    run=run,
)
