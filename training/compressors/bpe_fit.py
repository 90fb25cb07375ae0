"""``proxybyte compressor fit bpe``."""

import argparse
import sys

from proxybyte import numbers

from .fitting import Fitter, add_corpus_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the family."""
    add_corpus_arguments(parser)
    parser.add_argument(
        "--symbols", type=numbers.vocabulary, default=16384, metavar="N", help="vocabulary size (default: 16384)"
    )
    parser.add_argument(
        "--split",
        choices=["code", "gpt2", "gpt4"],
        default="code",
        help="where merges stop: 'code' joins punctuation, line end and indent (default), or as GPT-2 or GPT-4 do",
    )


def fit(args: argparse.Namespace) -> str:
    """Train on the corpus and save."""
    from proxybyte.training.texts import source_of

    from .bpe_train import Seen, Split, train_bpe

    source = source_of(args, args.corpus)
    seen = Seen()
    documents, bars = source.read(progress="reading"), sys.stderr.isatty()  # elsewhere the bars are blank lines
    compressor = train_bpe(documents, args.symbols, Split(args.split), seen=seen, progress=bars)
    compressor.save(args.out)
    left_out = f"; {seen.not_utf8} documents are not UTF-8 and were left out" if seen.not_utf8 else ""
    fewer = f" ({args.symbols} were asked: no pairs are left to merge)" if compressor.num_symbols < args.symbols else ""
    return f"{compressor.name}: {compressor.num_symbols} symbols{fewer}, from {seen.n_bytes:,} bytes{left_out}"


FITTER = Fitter(
    summary="train a byte-level BPE on a corpus",
    examples="""\
  proxybyte compressor fit bpe --corpus data/corpus --symbols 16384 --out runs/bpe16k
  proxybyte compressor fit bpe --corpus src/ README.md --symbols 4096 --max-mb 50 --out runs/bpe4k""",
    add_arguments=add_arguments,
    fit=fit,
)
