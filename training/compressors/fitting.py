"""What ``proxybyte compressor fit FAMILY`` needs from a family."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from proxybyte import numbers
from proxybyte.training.texts.options import TEXT_HELP, add_text_options


@dataclass(frozen=True)
class Fitter:
    """The sub-command of one family. Its module imports what is slow inside ``fit``.

    Attributes:
        summary: one line for the list of families.
        examples: command lines to copy.
        add_arguments: declares the family's own options; ``--out`` is there already.
        fit: does the work and leaves a compressor's folder at ``args.out``; its return value is printed.
    """

    summary: str
    examples: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    fit: Callable[[argparse.Namespace], str]


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every family that learns from text; read them with :func:`~proxybyte.training.texts.source_of`."""
    parser.add_argument(
        "--corpus",
        type=numbers.path,
        nargs="+",
        required=True,
        metavar="PATH",
        help=TEXT_HELP,
    )
    parser.add_argument("--max-mb", type=numbers.megabytes, metavar="MB", help="stop reading after so many megabytes")
    add_text_options(parser)
