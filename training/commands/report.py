"""``proxybyte report``: one page about a finished run."""

import argparse
import shlex

from proxybyte import numbers
from proxybyte.cli import Command

EXAMPLES = """\
  proxybyte report runs/quickstart/run
  proxybyte report runs/a --max-mb 1 --out a.html"""
PAGE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "folder", type=numbers.path, metavar="RUN", help="the output folder of a finished 'proxybyte train'"
    )
    parser.add_argument(
        "--out", type=numbers.path, metavar="FILE", help=f"the page (default: {PAGE} in the run's folder)"
    )
    parser.add_argument(
        "--max-mb",
        type=numbers.megabytes,
        default=0.06,
        metavar="MB",
        help="held-out text to score (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Measure, print the table and the sample, write the page."""
    from proxybyte.folders import write_text
    from proxybyte.training.run.config_io import finished_run

    finished_run(args.folder)  # before torch is waited for
    from proxybyte.training.run.assemble import PLOT_FILE
    from proxybyte.training.run_page.findings import measure
    from proxybyte.training.run_page.html import page, why_files_win

    findings = measure(args.folder, numbers.bytes_of(args.max_mb))
    out = args.out or args.folder / PAGE
    write_text(out, page(findings, args.folder / PLOT_FILE))
    width = max(len(figure.name) for figure in findings.figures)
    print(f"bits per byte on {findings.documents:,} held-out documents, {findings.n_bytes:,} bytes, each read alone")
    for figure in findings.figures:
        print(f"  {figure.name:<{width}}  {figure.bits_per_byte:6.3f}")
    print(why_files_win())
    sample = findings.sample
    print(f"\nwhat it writes, greedily (of {sample.of} held-out prompts the one that agrees most with the text):")
    for title, text in (("prompt", sample.prompt), ("the model goes on", sample.written), ("the text", sample.text)):
        print(f"--- {title}\n{text.decode('utf-8', 'replace')}")
    print(f"---\nthe same with curves, both views and the cost of each byte: {out}")
    print(f"next: proxybyte export {shlex.quote(str(args.folder))} --format native --out FOLDER")


COMMAND = Command("one page about a finished run: figures, curves, both views, a sample", EXAMPLES, add_arguments, run)
