"""``proxybyte compressor compile M1``: the neural compressor's model as a table that needs no model."""

import argparse

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.folders import output_folder
from proxybyte.training.compressors.storage import output_kind

EXAMPLES = """\
  proxybyte compressor fit neural --corpus data/corpus --out runs/m1
  proxybyte compressor compile runs/m1 --symbols 65536 --out runs/codebook
  proxybyte compressor compile runs/m1 --boundary line --reweigh data/corpus --out runs/codebook-line"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from proxybyte.training.texts.options import TEXT_HELP, add_text_options

    parser.add_argument(
        "m1", type=numbers.path, metavar="M1", help="folder that 'proxybyte compressor fit neural' wrote"
    )
    parser.add_argument("--out", type=numbers.path, required=True, metavar="FOLDER", help="where to save the codebook")
    parser.add_argument(
        "--symbols", type=numbers.vocabulary, default=65_536, metavar="N", help="strings (default: 65536; 256 or more)"
    )
    parser.add_argument(
        "--boundary",
        choices=["none", "line", "pretoken", "entropy"],
        default="none",
        help="where a symbol must end, so that an edit stays local: nowhere (default), before line ends, between words "
        "and marks, or where M1 is uncertain",
    )
    parser.add_argument(
        "--threshold",
        type=numbers.not_negative,
        default=4.5,
        metavar="BITS",
        help="entropy that ends a symbol, with entropy (4.5)",
    )
    parser.add_argument(
        "--jump",
        type=numbers.not_negative,
        default=3.0,
        metavar="BITS",
        help="rise of entropy that ends a symbol, with entropy (3)",
    )
    parser.add_argument(
        "--reweigh",
        type=numbers.path,
        nargs="+",
        metavar="PATH",
        help=f"exchange strings that the parse of this text never uses for longer ones that it would: {TEXT_HELP}",
    )
    parser.add_argument(
        "--rounds", type=numbers.count_or_none, default=10, metavar="N", help="of reweighing, at most (default: 10)"
    )
    parser.add_argument("--max-mb", type=numbers.megabytes, metavar="MB", help="text to reweigh on, at most")
    add_text_options(parser)
    parser.add_argument("--picture", type=numbers.picture, metavar="FILE", help="draw a part of the trie as PNG or SVG")
    parser.add_argument("--picture-from", default="self", metavar="TEXT", help="which part (default: below 'self')")


def run(args: argparse.Namespace) -> None:
    """Grow, reweigh if asked, save."""
    with output_folder(args.out, output_kind("codebook")):
        _compile(args)


def _compile(args: argparse.Namespace) -> None:
    from proxybyte.training.compressors import load_compressor
    from proxybyte.training.compressors.codebook import Boundary, CodebookCompressor
    from proxybyte.training.compressors.codebook.growth import GrowthRule, grow
    from proxybyte.training.compressors.codebook.picture import draw_trie
    from proxybyte.training.compressors.codebook.reweigh import reweigh
    from proxybyte.training.compressors.neural import NeuralCompressor
    from proxybyte.training.texts import source_of

    neural = load_compressor(args.m1)
    if not isinstance(neural, NeuralCompressor):
        raise ProxyByteError(
            f"{args.m1}: is a {neural.family} compressor; a codebook is compiled from 'proxybyte compressor fit neural'"
        )
    rule = GrowthRule(args.symbols, Boundary(args.boundary), args.threshold, args.jump)
    trie = grow(neural.lm, rule)
    made = {"m1": neural.name, "boundary": rule.boundary, "reweighed_bytes": 0}
    if args.reweigh:
        documents = list(source_of(args, args.reweigh).read(progress="reading"))
        trie = reweigh(trie, documents, rule.boundary, args.rounds)
        made["reweighed_bytes"] = sum(map(len, documents))
    parts = [f"codebook-{len(trie)}", *([rule.boundary.value] if args.boundary != "none" else [])]
    compressor = CodebookCompressor(trie, "-".join([*parts, *(["reweighed"] if args.reweigh else [])]), made)
    compressor.save(args.out)
    if args.picture:
        draw_trie(trie, args.picture_from.encode(), args.picture)
    lengths = trie.spellings.lengths
    print(f"{compressor.name}: strings of 1 to {lengths.max()} bytes, {lengths.mean():.1f} on average")
    print(f"saved to {args.out}; use it with 'proxybyte prepare --compressor {args.out}'")


COMMAND = Command(
    summary="compile M1 into a codebook: a table that codes as M1 would, without it",
    examples=EXAMPLES,
    add_arguments=add_arguments,
    run=run,
)
