"""``proxybyte experiment run``: train and score every cell of a plan."""

import argparse
import shlex
from pathlib import Path

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError

EXAMPLES = """\
  proxybyte experiment run raw_share --size smoke --out runs/raw_share
  proxybyte experiment run my.yaml --out runs/mine --set seeds=[0,1] match.budget=2e13
  proxybyte experiment run my.yaml --list
  proxybyte experiment run scaling --size gpu --out runs/scaling --launch "accelerate launch --num_processes 8 -m"

The same command goes on where it was interrupted: finished cells stay, a half-trained one goes on from its checkpoint.
Started several times with one --out on one machine, each takes cells that no other has; what they share is made once,
and the cell of a process that died is taken over. A scheduler gives each of its jobs a share by --cells:
  proxybyte experiment run first --size gpu --out runs/first --cells 3/18
On one machine:
  for gpu in 0 1; do CUDA_VISIBLE_DEVICES=$gpu proxybyte experiment run first --size gpu --out runs/first & done; wait

Shipped plans, each to be run in a size: embeddings first granularity gzip_sentinels interfaces levers masking moves
noise pairing raw_exposure raw_share scaling"""


SPEEDS = (3e10, 4e14)
"""FLOPs a second that training may reach: a core of a CPU, an accelerator at 40% of an H100's dense bfloat16 peak."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "plan", type=numbers.path_or_name, metavar="PLAN", help="a YAML plan, or the name of a shipped one"
    )
    parser.add_argument(
        "--size",
        type=numbers.path_or_name,
        help="defaults that the plan is laid over: smoke (minutes on a CPU), narrow, hour, gpu, or a file",
    )
    parser.add_argument(
        "--out", type=numbers.path, metavar="FOLDER", help="where cells and shared data go (default: runs/PLAN)"
    )
    parser.add_argument("--list", action="store_true", help="list the cells and stop")
    parser.add_argument(
        "--cells",
        type=numbers.name,
        metavar="I/N",
        help="only every N-th cell from the I-th on (1/4 to 4/4), or the cell of this name",
    )
    parser.add_argument(
        "--launch", default="", metavar="WORDS", help="command before the training module, for several processes"
    )
    parser.add_argument(
        "--workers",
        type=numbers.processes,
        default=0,
        metavar="N",
        help="processes that prepare data (default: one a core)",
    )
    parser.add_argument(
        "--slice-minutes",
        type=numbers.real(above=0),
        metavar="M",
        help="stop after so many minutes, saved; the same command goes on",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="key.sub=value", help="changes to the plan")


def _run(args: argparse.Namespace) -> int:
    from proxybyte.training.experiments.grid import choose_cells, expand
    from proxybyte.training.experiments.schema import load_plan

    plan = load_plan(args.plan, args.size, args.set)
    if args.list:
        cells = choose_cells(expand(plan), args.cells)
        print("\n".join(f"{cell.name}  {cell.kind}" for cell in cells))
        print(f"{len(cells)} cells, each of {plan.match.budget:g} ({plan.match.by})")
        if plan.match.by == "flops":
            total = sum(cell.budget for cell in cells)
            hours = ", ".join(f"{total / speed / 3600:.3g} hours at {speed:g}" for speed in SPEEDS)
            print(f"{total:.3g} training FLOPs together: {hours} FLOPs a second")
        return 0
    from proxybyte.training.experiments.runner import RunOptions, run_plan  # waits for torch
    from proxybyte.training.machine import exit_code

    output = args.out or Path("runs") / Path(args.plan).stem
    options = RunOptions(output, tuple(shlex.split(args.launch)), args.workers, args.cells, args.slice_minutes)
    progress = run_plan(plan, options)
    print(f"{len(progress.finished)} cells finished in {output}")
    if progress.elsewhere:
        print(f"{len(progress.elsewhere)} are being run by other processes: {', '.join(progress.elsewhere)}")
    if progress.stopped:
        print(f"stopped in {progress.stopped}, which is saved: the same command goes on from there")
    if progress.failed:
        name, reason = next(iter(progress.failed.items()))
        raise ProxyByteError(f"{len(progress.failed)} cell(s) failed, the first is {name}: {reason}")
    if not progress.stopped:
        print(f"next: proxybyte experiment report {shlex.quote(str(output))}")
    return exit_code(progress.stopped_by)


COMMAND = Command("train and score every cell of an experiment plan", EXAMPLES, _add_arguments, _run)
