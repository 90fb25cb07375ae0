"""``proxybyte compressor fit FAMILY``: learn a compressor from text. Each family brings its own options."""

import argparse
import shlex

from proxybyte import numbers
from proxybyte.checksums import verify_folder
from proxybyte.cli import Command
from proxybyte.folders import output_folder
from proxybyte.training.compressors import FAMILIES
from proxybyte.training.compressors.protocol import output_kind

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
        sub.set_defaults(fit=fitter.fit, family=name)


def run(args: argparse.Namespace) -> None:
    """Fit, and say what came of it."""
    with output_folder(args.out, output_kind(args.family)):
        for path in getattr(args, "corpus", ()):  # a family that is made of a tokenizer takes none
            if path.is_dir():
                verify_folder(path)
        print(args.fit(args))
    print(f"saved to {args.out}")
    print(f"next: proxybyte prepare CORPUS --compressor {shlex.quote(str(args.out))} --out FOLDER")


COMMAND = Command(summary="train a compressor on a corpus", examples=EXAMPLES, add_arguments=add_arguments, run=run)
