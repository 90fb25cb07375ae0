"""``proxybyte compressor report``: several compressors side by side on the same held-out text."""

import argparse
from collections import Counter
from pathlib import Path

from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.user_paths import name_or_path

EXAMPLES = """\
  proxybyte compressor report gzip bits-16 runs/bpe16k --corpus data/corpus --out runs/report
  proxybyte compressor report runs/bpe4k runs/bpe16k --corpus src/ --samples 2000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "compressors",
        type=name_or_path,
        nargs="+",
        metavar="NAME_OR_FOLDER",
        help="what 'prepare --compressor' takes",
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="held-out text: a corpus folder, parquet files with a 'text' column, text files, or folders of them",
    )
    parser.add_argument("--split", default="validation", help="shards of a corpus folder (default: validation)")
    parser.add_argument("--max-mb", type=float, default=8, metavar="MB", help="text to read (default: 8)")
    parser.add_argument(
        "--samples", type=int, default=80_000, metavar="N", help="snippets for stability, 0 for none (default: 80000)"
    )
    parser.add_argument("--characters", type=int, default=512, metavar="N", help="length of a snippet (default: 512)")
    parser.add_argument("--seed", type=int, default=0, help="of the snippets and deletions (default: 0)")
    parser.add_argument("--out", type=Path, default=None, metavar="FOLDER", help="write report.json and plots here")


def run(args: argparse.Namespace) -> None:
    """Measure, print the table, write the files."""
    from proxybyte.training.compressors import load_compressor
    from proxybyte.training.compressors.report import ReportOptions, compare
    from proxybyte.training.compressors.report_output import as_table, write_report
    from proxybyte.training.compressors.texts import MEGABYTE, TextSource

    if args.max_mb <= 0 or args.samples < 0 or args.characters < 1:
        raise ProxyByteError("--max-mb and --characters are above 0, --samples is at least 0")
    loaded = {one: load_compressor(one) for one in args.compressors}
    often = Counter(compressor.name for compressor in loaded.values())
    compressors = {
        compressor.name if often[compressor.name] == 1 else f"{compressor.name} ({given})": compressor
        for given, compressor in loaded.items()
    }
    source = TextSource(args.corpus, split=args.split, max_bytes=int(args.max_mb * MEGABYTE))
    documents = list(source.read(progress="reading"))
    report = compare(compressors, documents, ReportOptions(args.samples, args.characters, seed=args.seed))
    print(as_table(report))
    if args.out is not None:
        print("\n".join(f"wrote {path}" for path in write_report(report, args.out)))


COMMAND = Command(
    summary="measure compressors side by side on held-out text",
    examples=EXAMPLES,
    add_arguments=add_arguments,
    run=run,
)
