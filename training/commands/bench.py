"""``proxybyte bench``: every figure beside its baseline, measured in the same run."""

import argparse
import json
import os
import platform
from importlib.metadata import entry_points
from pathlib import Path

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_json

GROUP = "proxybyte.benchmarks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    names = ", ".join(sorted(entry.name for entry in entry_points(group=GROUP)))
    parser.add_argument("groups", nargs="*", help=f"which to run (default: all): {names}")
    parser.add_argument(
        "--out", type=numbers.path, default=Path("build/bench.json"), help="JSON file (default: %(default)s)"
    )


def machine() -> str:
    """Cores and processor of this machine, and its accelerator if there is one."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((line.split(":")[1].strip() for line in cpuinfo.open() if line.startswith("model name")), model)
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} cores of {model}{device}, torch {torch.__version__}"


def run(args: argparse.Namespace) -> int:
    """Measure, print a table and write the JSON file; figures of groups not run are kept."""
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name in args.groups:
        if name not in known:
            raise ProxyByteError(f"no benchmark group {name!r}: the groups are {', '.join(sorted(known))}")
    where = machine()
    rows: list[dict] = []
    print(f"{'name':<32} {'value':>12} {'baseline':>12} {'ratio':>8}  unit")
    for name in args.groups or sorted(known):
        for row in known[name].load()():
            rows.append({**row, "machine": where})
            print(
                f"{row['name']:<32} {row['value']:>12.4g} {row['baseline']:>12.4g} {row['ratio']:>8.2f}  {row['unit']}"
            )
    kept = []
    if args.out.exists():
        measured = {row["name"] for row in rows}
        kept = [row for row in json.loads(args.out.read_bytes()) if row["name"] not in measured]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, kept + rows)
    print(f"on {where}; written to {args.out}")
    return 0


COMMAND = Command(
    summary="measure each figure beside its baseline",
    examples="  proxybyte bench\n  proxybyte bench stream --out build/bench.json",
    add_arguments=add_arguments,
    run=run,
)
