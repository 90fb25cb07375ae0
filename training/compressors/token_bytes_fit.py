"""``proxybyte compressor fit token-bytes``: nothing to train, a tokenizer to wrap."""

import argparse

from proxybyte import numbers
from proxybyte.errors import ProxyByteError

from .fitting import Fitter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the family."""
    parser.add_argument(
        "--tokenizer",
        required=True,
        type=numbers.path_or_name,
        metavar="FOLDER",
        help="a BPE compressor, a model's folder or a tokenizer.json",
    )
    parser.add_argument(
        "--order",
        choices=["plain", "gray", "gray-published"],
        default="plain",
        help="write a token's id (default), or the Gray code of its place among all tokens sorted by the bytes they "
        "spell, or by their decoded text as the published code has it",
    )


def fit(args: argparse.Namespace) -> str:
    """Wrap the tokenizer and save."""
    from .bpe import BpeCompressor
    from .registry import load_compressor
    from .token_bytes import Order, TokenBytesCompressor

    bpe = load_compressor(args.tokenizer)
    if not isinstance(bpe, BpeCompressor):
        raise ProxyByteError(f"{args.tokenizer}: is a {bpe.family} compressor; token bytes are made of a tokenizer")
    compressor = TokenBytesCompressor(bpe, Order(args.order))
    compressor.save(args.out)
    return f"{compressor.name}: {bpe.num_symbols} tokens as {compressor.width} bytes each"


FITTER = Fitter(
    summary="write a tokenizer's ids as bytes of fixed width",
    examples="  proxybyte compressor fit token-bytes --tokenizer runs/bpe16k --order gray --out runs/bpe16k-gray",
    add_arguments=add_arguments,
    fit=fit,
)
