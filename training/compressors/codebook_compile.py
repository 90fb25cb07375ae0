"""``proxybyte compressor compile M1``: the neural compressor's model as a table that needs no model."""

import argparse

from proxybyte import numbers
from proxybyte.errors import ProxyByteError
from proxybyte.training.texts.options import TEXT_HELP, add_text_options

from .fitting import Fitter, add_entropy_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "m1", type=numbers.path, metavar="M1", help="folder that 'proxybyte compressor fit neural' wrote"
    )
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
    add_entropy_arguments(parser, "ends a symbol, with entropy")
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


def compile_codebook(args: argparse.Namespace) -> str:
    """Grow, reweigh if asked, save.

    Raises:
        ProxyByteError: if ``args.m1`` is no neural compressor, or the part to draw is empty.
    """
    if not args.picture_from:
        raise ProxyByteError("--picture-from is empty: give the bytes that the part begins with")
    from .registry import load_compressor

    neural = load_compressor(args.m1)  # before torch is waited for
    from proxybyte.training.texts import source_of

    from .codebook import Boundary, CodebookCompressor
    from .codebook.growth import GrowthRule, grow
    from .codebook.picture import draw_trie
    from .codebook.reweigh import reweigh
    from .neural import NeuralCompressor

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
    return f"{compressor.name}: strings of 1 to {lengths.max()} bytes, {lengths.mean():.1f} on average"


COMPILER = Fitter(
    summary="compile M1 into a codebook: a table that codes as M1 would, without it",
    examples="""  proxybyte compressor fit neural --corpus data/corpus --out runs/m1
  proxybyte compressor compile runs/m1 --symbols 65536 --out runs/codebook
  proxybyte compressor compile runs/m1 --boundary line --reweigh data/corpus --out runs/codebook-line""",
    add_arguments=add_arguments,
    fit=compile_codebook,
)
