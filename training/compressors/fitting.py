"""What ``proxybyte compressor fit FAMILY`` needs from a family."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


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
    """The options of every family that learns from text; read them with :func:`~.texts.read_texts`."""
    parser.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="a corpus folder ('proxybyte corpus'), parquet files with a 'text' column, text files, or folders of them",
    )
    parser.add_argument("--max-mb", type=float, default=None, metavar="MB", help="stop reading after so many megabytes")
