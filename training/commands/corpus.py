"""``proxybyte corpus``: collect text into a corpus folder."""

import argparse
import shlex
from dataclasses import replace

from proxybyte import numbers
from proxybyte.artefacts import CORPUS_REPORT
from proxybyte.cli import Command, add_text_facts
from proxybyte.errors import ProxyByteError
from proxybyte.training.remote import expanded, is_remote, place, written_to

EXAMPLES = """\
  proxybyte corpus --python-packages --max-mb 50 --out corpus
  proxybyte corpus ~/projects --suffixes .py,.pyi,.md --out corpus
  proxybyte corpus shards/*.jsonl.zst --text-column content --key-column repo_name --out corpus
  proxybyte corpus --dataset roneneldan/TinyStories --validation-share 0.01 --license cdla-sharing-1.0 --out corpus
  proxybyte corpus shards/*.jsonl.zst --out corpus --shard 5/64
  proxybyte corpus shards/*.jsonl.zst --out corpus --merge

Folders are split into train and validation by top-level package, tables by --key-column or by document.
Exact duplicates are dropped. OUT/corpus.json says what was kept, what was left out, and why, and which files of
other endings were passed over. Shards, in any number and order, and a --merge of the same options write what one
process writes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``proxybyte corpus``."""
    from proxybyte.training.texts.options import add_text_options

    sources = parser.add_argument_group("sources")
    sources.add_argument(
        "sources",
        nargs="*",
        type=place,
        metavar="SOURCE",
        help="a folder, a .jsonl, .ndjson or .parquet table with a text column (plain, .gz or .zst), or a text file",
    )
    sources.add_argument(
        "--python-packages", action="store_true", help="the standard library and all packages installed here"
    )
    sources.add_argument(
        "--dataset",
        type=numbers.path_or_name,
        metavar="NAME",
        help="a dataset by name, or a folder that save_to_disk wrote",
    )
    sources.add_argument("--dataset-config", type=numbers.name, metavar="NAME", help="the dataset's configuration")
    sources.add_argument(
        "--dataset-split", type=numbers.name, metavar="NAME", default="train", help="(default: %(default)s)"
    )
    add_text_options(sources)
    sources.add_argument(
        "--cut-bytes",
        type=numbers.count,
        metavar="N",
        help="cut documents into pieces of at most N bytes, at line ends",
    )
    split = parser.add_argument_group("split")
    keys = split.add_mutually_exclusive_group()
    keys.add_argument(
        "--key-column",
        type=numbers.name,
        metavar="NAME",
        help="rows of tables with one value stay in one split (default: by document)",
    )
    keys.add_argument("--by-document", action="store_true", help="split folders by document, not by package")
    split.add_argument(
        "--validation-share", type=numbers.share, default=0.05, metavar="SHARE", help="(default: %(default)s)"
    )
    split.add_argument(
        "--max-mb",
        type=numbers.megabytes,
        metavar="MB",
        help="keep at most this much text: whole packages, keys or documents of all sizes, drawn by a seeded hash",
    )
    split.add_argument("--seed", type=numbers.seed, default=0, help="(default: %(default)s)")
    add_text_facts(parser.add_argument_group("about the text, for the cards of models that read it"), "--license")
    _add_output(parser.add_argument_group("output"))


def _add_output(output: argparse._ArgumentGroup) -> None:
    output.add_argument("--out", type=place, required=True, metavar="FOLDER")
    parts = output.add_mutually_exclusive_group()
    parts.add_argument(
        "--shard", type=numbers.part, metavar="I/N", help="read the I-th of N parts of the sources, counted from 0"
    )
    parts.add_argument("--merge", action="store_true", help="make the corpus of what shards have read")
    output.add_argument("--overwrite", action="store_true", help="replace an earlier corpus in FOLDER")
    output.add_argument(
        "--shard-mb", type=numbers.megabytes, default=256, metavar="MB", help="text in a shard (default: 256)"
    )
    output.add_argument("--strict", action="store_true", help="stop at the first line or file that cannot be taken")
    output.add_argument(
        "--examples",
        type=numbers.count_or_none,
        default=100,
        metavar="N",
        help="list the first N things left out (default: 100)",
    )


def run(args: argparse.Namespace) -> None:
    """Collect, and print the report."""
    from proxybyte.training.corpus import KIND, CorpusOptions, collect_corpus, collect_share, merge_corpus
    from proxybyte.training.corpus.split import SplitRule
    from proxybyte.training.machine import Share
    from proxybyte.training.texts import text_rules_of
    from proxybyte.training.texts.tables import DatasetName

    split = SplitRule(
        validation_share=args.validation_share,
        max_bytes=None if args.max_mb is None else numbers.bytes_of(args.max_mb),
        seed=args.seed,
    )
    options = CorpusOptions(
        output=args.out,
        paths=tuple(path for source in args.sources for path in expanded(source)),
        python_packages=args.python_packages,
        dataset=DatasetName(args.dataset, args.dataset_config, args.dataset_split) if args.dataset else None,
        suffixes=args.suffixes,
        rules=text_rules_of(args),
        split=split,
        shard_bytes=numbers.bytes_of(args.shard_mb),
        cut_bytes=args.cut_bytes,
        strict=args.strict,
        examples=args.examples,
        overwrite=args.overwrite,
        licenses=tuple(args.license),
        languages=tuple(args.language),
    )
    if is_remote(args.out) and (args.shard is not None or args.merge):
        raise ProxyByteError("--shard and --merge of a corpus need an --out that all processes see as a folder")
    if args.shard is not None:
        print(collect_share(options, Share(*args.shard)))
        return
    if is_remote(args.out) and (args.out / CORPUS_REPORT).exists() and not args.overwrite:
        raise ProxyByteError(f"{args.out} holds a corpus already: name another --out or pass --overwrite")
    with written_to(args.out, KIND, CORPUS_REPORT) as output:
        options = replace(options, output=output)
        print(merge_corpus(options) if args.merge else collect_corpus(options))
    print(f"written to {args.out}, report in {args.out / 'corpus.json'}")
    print(f"next: proxybyte compressor fit bpe --corpus {shlex.quote(str(args.out))} --out FOLDER")


COMMAND = Command(
    summary="collect source files, JSONL, parquet or a dataset into train and validation shards",
    examples=EXAMPLES,
    add_arguments=add_arguments,
    run=run,
)
