"""``proxybyte compressor report``: several compressors side by side on the same held-out text."""

import argparse
from collections import Counter

from proxybyte import numbers
from proxybyte.cli import Command

EXAMPLES = """\
  proxybyte compressor report gzip bits-16 runs/bpe16k --corpus data/corpus --out runs/report
  proxybyte compressor report runs/bpe4k runs/bpe16k --corpus src/ --samples 2000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from proxybyte.training.texts.options import TEXT_HELP, add_text_options

    parser.add_argument(
        "compressors",
        nargs="+",
        type=numbers.path_or_name,
        metavar="NAME_OR_FOLDER",
        help="what 'prepare --compressor' takes",
    )
    parser.add_argument(
        "--corpus",
        type=numbers.path,
        nargs="+",
        required=True,
        metavar="PATH",
        help=f"held-out text: {TEXT_HELP}",
    )
    parser.add_argument(
        "--split", type=numbers.name, default="validation", help="shards of a corpus folder (default: validation)"
    )
    parser.add_argument("--max-mb", type=numbers.megabytes, default=8, metavar="MB", help="text to read (default: 8)")
    parser.add_argument(
        "--samples",
        type=numbers.count_or_none,
        default=80_000,
        metavar="N",
        help="snippets for stability, 0 for none (default: 80000)",
    )
    parser.add_argument(
        "--characters", type=numbers.count, default=512, metavar="N", help="length of a snippet (default: 512)"
    )
    parser.add_argument("--seed", type=numbers.seed, default=0, help="of the snippets and deletions (default: 0)")
    add_text_options(parser)
    parser.add_argument(
        "--out", type=numbers.path, default=None, metavar="FOLDER", help="write report.json and plots here"
    )


def run(args: argparse.Namespace) -> None:
    """Measure, print the table, write the files."""
    from proxybyte.training.compressors import load_compressor
    from proxybyte.training.compressors.report import ReportOptions, as_table, compare, write_report
    from proxybyte.training.texts import source_of

    loaded = {one: load_compressor(one) for one in args.compressors}
    often = Counter(compressor.name for compressor in loaded.values())
    compressors = {
        compressor.name if often[compressor.name] == 1 else f"{compressor.name} ({given})": compressor
        for given, compressor in loaded.items()
    }
    documents = list(source_of(args, args.corpus, args.split).read(progress="reading"))
    report = compare(compressors, documents, ReportOptions(args.samples, args.characters, seed=args.seed))
    print(as_table(report))
    if args.out is not None:
        print("\n".join(f"wrote {path}" for path in write_report(report, args.out)))
    best = min(report.compressors, key=lambda one: -one.bytes_per_symbol).name
    print(f"most bytes a symbol: {best}")
    print("next: proxybyte prepare CORPUS --compressor NAME_OR_FOLDER --out FOLDER")


COMMAND = Command(
    summary="measure compressors side by side on held-out text",
    examples=EXAMPLES,
    add_arguments=add_arguments,
    run=run,
)
