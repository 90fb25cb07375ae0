"""What ``proxybyte compressor fit FAMILY`` needs from a family."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from proxybyte import numbers
from proxybyte.training.remote import place
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
        type=place,
        nargs="+",
        required=True,
        metavar="PATH",
        help=TEXT_HELP,
    )
    parser.add_argument("--max-mb", type=numbers.megabytes, metavar="MB", help="stop reading after so many megabytes")
    parser.add_argument(
        "--sample",
        type=numbers.seed,
        nargs="?",
        const=0,
        metavar="SEED",
        help="draw the --max-mb from all over the corpus instead of from its beginning (default seed: 0)",
    )
    add_text_options(parser)


def add_entropy_arguments(parser: argparse._ActionsContainer, what_it_does: str) -> None:
    """Where M1 is uncertain: ``args.threshold`` and ``args.jump``, in bits."""
    for name, default, of_what in (("threshold", 4.5, "entropy"), ("jump", 3.0, "rise of entropy")):
        parser.add_argument(
            f"--{name}",
            type=numbers.not_negative,
            default=default,
            metavar="BITS",
            help=f"{of_what} that {what_it_does} (default: {default:g})",
        )
