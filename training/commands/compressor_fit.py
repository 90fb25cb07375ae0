"""``proxybyte compressor fit FAMILY``: learn a compressor from text. Each family brings its own options."""

import argparse

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.training.compressors import FAMILIES

EXAMPLES = """\
  proxybyte compressor fit bpe --corpus data/corpus --symbols 16384 --out runs/bpe16k
  proxybyte compressor fit bpe --help"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-parser for each family that has something to fit."""
    families = parser.add_subparsers(title="families", metavar="FAMILY", required=True)
    for name, family in FAMILIES.items():
        if family.fitter is None:
            continue
        fitter = family.load_fitter()
        sub = families.add_parser(
            name,
            help=fitter.summary,
            description=fitter.summary,
            epilog=f"examples:\n{fitter.examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument(
            "--out", type=numbers.path, required=True, metavar="FOLDER", help="where to save the compressor"
        )
        fitter.add_arguments(sub)
        sub.set_defaults(fit=fitter.fit)


def run(args: argparse.Namespace) -> None:
    """Fit, and say what came of it."""
    print(args.fit(args))
    print(f"saved to {args.out}; use it with 'proxybyte prepare --compressor {args.out}'")


COMMAND = Command(summary="train a compressor on a corpus", examples=EXAMPLES, add_arguments=add_arguments, run=run)
