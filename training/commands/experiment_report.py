"""``proxybyte experiment report``: tables, tests and curves of a plan's finished cells."""

import argparse
import shlex

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_json

EXAMPLES = """\
  proxybyte experiment report runs/raw_share
  proxybyte experiment report runs/raw_share --out docs/raw_share

Writes report.md, report.json, report.html (one page, pictures inside) and the pictures; cells that are not finished
are named and left out."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=numbers.path, help="folder that 'proxybyte experiment run' works in")
    parser.add_argument("--out", type=numbers.path, metavar="FOLDER", help="where to write (default: FOLDER/report)")
    parser.add_argument(
        "--arms",
        type=numbers.path,
        metavar="FILE",
        help="also write a JSON of each arm at its best learning rate beside the baseline",
    )


def _run(args: argparse.Namespace) -> int:
    from proxybyte.training.experiments.schema import PLAN_FILE

    if not (args.folder / PLAN_FILE).is_file():  # before torch is waited for
        raise ProxyByteError(f"{args.folder} is no experiment: it has no {PLAN_FILE} ('proxybyte experiment run')")
    from proxybyte.training.experiments.ranking import ranking
    from proxybyte.training.experiments.report import as_markdown, read_report, write_report

    report = read_report(args.folder)
    page = write_report(report, args.out or args.folder / "report")
    if args.arms is not None:
        write_json(args.arms, ranking(report))
    print(as_markdown(report))
    print(f"written to {page.parent}; {page} is the whole of it")
    plan, folder = shlex.quote(str(args.folder / PLAN_FILE)), shlex.quote(str(args.folder))
    if report.unfinished:
        print(f"next: proxybyte experiment run {plan} --out {folder}")
    else:
        more = [*report.plan.seeds, max(report.plan.seeds) + 1]
        print(f"next: proxybyte experiment run {plan} --set seeds={more} --out FOLDER".replace(", ", ","))
    return 0


COMMAND = Command("tables, paired tests and curves of an experiment", EXAMPLES, _add_arguments, _run)
