"""``proxybyte corpus``: collect text into a corpus folder."""

import argparse
from pathlib import Path

from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError

EXAMPLES = """\
  proxybyte corpus --python-packages --max-mb 50 --out corpus
  proxybyte corpus ~/projects --suffixes .py,.pyi,.md --out corpus
  proxybyte corpus shards/*.jsonl.zst --text-column content --key-column repo_name --out corpus
  proxybyte corpus --dataset roneneldan/TinyStories --validation-share 0.01 --out corpus

Folders are split into train and validation by top-level package, tables by --key-column or by document.
Exact duplicates are dropped. OUT/corpus.json says what was kept, what was left out, and why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``proxybyte corpus``."""
    sources = parser.add_argument_group("sources")
    sources.add_argument(
        "sources",
        nargs="*",
        type=Path,
        metavar="SOURCE",
        help="a folder, or a JSONL or parquet file with a text column (plain, .gz, .zst)",
    )
    sources.add_argument(
        "--python-packages", action="store_true", help="the standard library and all packages installed here"
    )
    sources.add_argument("--dataset", metavar="NAME", help="a dataset by name, or a folder that save_to_disk wrote")
    sources.add_argument("--dataset-config", metavar="NAME", help="the dataset's configuration")
    sources.add_argument("--dataset-split", metavar="NAME", default="train", help="(default: %(default)s)")
    sources.add_argument(
        "--suffixes", default=".py", help="endings of the files to take from folders, by comma (default: %(default)s)"
    )
    sources.add_argument("--text-column", metavar="NAME", default="text", help="(default: %(default)s)")
    sources.add_argument(
        "--cut-bytes", type=int, metavar="N", help="cut documents into pieces of at most N bytes, at line ends"
    )
    split = parser.add_argument_group("split")
    keys = split.add_mutually_exclusive_group()
    keys.add_argument(
        "--key-column", metavar="NAME", help="rows of tables with one value stay in one split (default: by document)"
    )
    keys.add_argument("--by-document", action="store_true", help="split folders by document, not by package")
    split.add_argument("--validation-share", type=float, default=0.05, metavar="SHARE", help="(default: %(default)s)")
    split.add_argument(
        "--max-mb",
        type=float,
        metavar="MB",
        help="keep at most this much text: whole packages, keys or documents, taken in the order of a seeded hash "
        "while they fit",
    )
    split.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    output.add_argument("--overwrite", action="store_true", help="replace an earlier corpus in FOLDER")
    output.add_argument("--shard-mb", type=float, default=256, metavar="MB", help="text in a shard (default: 256)")
    output.add_argument("--strict", action="store_true", help="stop at the first line or file that cannot be taken")
    output.add_argument(
        "--max-document-mb",
        type=float,
        default=10,
        metavar="MB",
        help="leave out documents and lines that are longer (default: 10)",
    )
    output.add_argument(
        "--examples", type=int, default=100, metavar="N", help="list the first N things left out (default: 100)"
    )


def run(args: argparse.Namespace) -> None:
    """Collect, and print the report."""
    from proxybyte.training.corpus import CorpusOptions, collect_corpus
    from proxybyte.training.corpus.records import MEGABYTE, TextRules
    from proxybyte.training.corpus.split import SplitRule
    from proxybyte.training.corpus.tables import DatasetName

    if args.cut_bytes is not None and args.cut_bytes < 1:
        raise ProxyByteError(f"--cut-bytes is {args.cut_bytes}: give at least 1")
    rules = TextRules(
        text_column=args.text_column,
        key_column=args.key_column,
        by_document=args.by_document,
        max_bytes=int(args.max_document_mb * MEGABYTE),
    )
    split = SplitRule(
        validation_share=args.validation_share,
        max_bytes=None if args.max_mb is None else int(args.max_mb * MEGABYTE),
        seed=args.seed,
    )
    options = CorpusOptions(
        output=args.out,
        paths=tuple(args.sources),
        python_packages=args.python_packages,
        dataset=DatasetName(args.dataset, args.dataset_config, args.dataset_split) if args.dataset else None,
        suffixes=tuple(suffix if suffix.startswith(".") else f".{suffix}" for suffix in args.suffixes.split(",")),
        rules=rules,
        split=split,
        shard_bytes=int(args.shard_mb * MEGABYTE),
        cut_bytes=args.cut_bytes,
        strict=args.strict,
        examples=args.examples,
        overwrite=args.overwrite,
    )
    print(collect_corpus(options))
    print(f"written to {args.out}, report in {args.out / 'corpus.json'}")


COMMAND = Command(
    summary="collect source files, JSONL, parquet or a dataset into train and validation shards",
    examples=EXAMPLES,
    add_arguments=add_arguments,
    run=run,
)
