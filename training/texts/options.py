"""The options of every command that takes text, and what they ask for."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxybyte import numbers
from proxybyte.errors import ProxyByteError

from .records import DEFAULT_SUFFIXES, TextRules

if TYPE_CHECKING:
    from .sources import TextSource

TEXT_HELP = (
    "a corpus folder ('proxybyte corpus') or prepared folder, a .jsonl, .ndjson or .parquet table (plain, .gz or "
    ".zst), a text file, or a folder of them"
)


def add_text_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare what counts as a document; read them with :func:`text_rules_of`."""
    parser.add_argument(
        "--suffixes",
        type=_endings,
        default=DEFAULT_SUFFIXES,
        metavar="ENDINGS",
        help=f"endings of the files to take from folders, by comma (default: {','.join(DEFAULT_SUFFIXES)})",
    )
    parser.add_argument(
        "--text-column", type=numbers.name, metavar="NAME", default="text", help="of tables (default: %(default)s)"
    )
    parser.add_argument(
        "--max-document-mb",
        type=numbers.megabytes,
        default=10,
        metavar="MB",
        help="leave out documents and lines that are longer (default: 10)",
    )


def text_rules_of(args: argparse.Namespace) -> TextRules:
    """The rules that the command line asks for."""
    return TextRules(
        text_column=args.text_column,
        key_column=getattr(args, "key_column", None),
        by_document=getattr(args, "by_document", False),
        max_bytes=numbers.bytes_of(args.max_document_mb),
    )


def _endings(text: str) -> tuple[str, ...]:
    endings = [ending.strip() for ending in numbers.name(text).split(",") if ending.strip(" .")]
    if not endings:
        raise numbers.NotTaken("must name an ending, such as .py")
    return tuple(ending if ending.startswith(".") else f".{ending}" for ending in endings)


def source_of(args: argparse.Namespace, paths: Sequence[Path], split: str = "train") -> "TextSource":
    """The text at ``paths``, of which ``--max-mb`` is read where the command has it."""
    from .sources import TextSource

    max_mb = getattr(args, "max_mb", None)
    if max_mb is None and getattr(args, "sample", None) is not None:
        raise ProxyByteError("--sample draws as much as --max-mb says: give it too")
    return TextSource(
        paths,
        split=split,
        max_bytes=None if max_mb is None else numbers.bytes_of(max_mb),
        sample_seed=getattr(args, "sample", None),
        suffixes=args.suffixes,
        rules=text_rules_of(args),
    )
