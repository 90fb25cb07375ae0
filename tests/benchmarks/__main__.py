"""``python tests/benchmarks``: every figure beside its baseline, measured in the same run (``make bench``).

A group is a file ``NAME_bench.py`` here whose ``measure(long)`` yields figures. Each runs in a process of its own, and
each figure is written as soon as it is there: a group that fails, or is cut off when time is up, loses no other.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from figures import NotMeasured

from proxybyte.folders import write_json

HERE = Path(__file__).parent
# Those that take least first, so that what is cut off is as little as can be.
ORDER = (
    "stream", "loss_memory", "utilisation", "bpb", "threads", "train", "eva", "suffix", "compressors", "multibyte",
    "prepare", "codebook", "distributed", "quantized", "serving",
)  # fmt: skip
SECONDS = 870.0
"""Of all groups together unless ``--long``; with starting and ending, under 15 minutes."""


def groups() -> list[str]:
    """Names of all groups, in the order in which they run."""
    found = {path.stem.removesuffix("_bench") for path in HERE.glob("*_bench.py")}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def machine() -> str:
    """Cores and processor of this machine, and its accelerator if there is one."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().split("\n")
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    torch = sys.modules.get("torch")  # a group that took an accelerator has loaded it
    device = f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
    return f"{os.cpu_count()} cores of {model}{device}, torch {version('torch')}"


def keep(row: dict[str, Any], out: Path) -> None:
    """Put a figure into the file, in place of an earlier one of its name; all others stay."""
    rows = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, [other for other in rows if other["name"] != row["name"]] + [row])


def measure_group(name: str, long: bool, out: Path) -> None:
    """Measure one group in this process; each figure is printed and kept as it comes."""
    for row in importlib.import_module(f"{name}_bench").measure(long):
        if not row["value"] > 0:
            raise RuntimeError(f"{row['name']} is {row['value']}, which no figure here can be")
        keep({**row, "machine": machine()}, out)
        figures = f"{row['value']:>12.4g} {row['baseline']:>12.4g} {row['ratio']:>8.2f}"
        print(f"{row['name']:<36} {figures}  {row['unit']}", flush=True)


def run(names: Sequence[str], long: bool, out: Path, seconds: float = SECONDS) -> dict[str, str]:
    """Measure groups one after the other.

    Returns:
        What went wrong, by group.
    """
    end = time.monotonic() + seconds
    print(f"{'name':<36} {'value':>12} {'baseline':>12} {'ratio':>8}  unit", flush=True)
    wrong = {}
    for name in names:
        words = [sys.executable, str(HERE), "--only", name, "--out", str(out), *(["--long"] if long else [])]
        left = None if long else max(1.0, end - time.monotonic())
        try:
            code = subprocess.run(words, check=False, timeout=left).returncode
        except subprocess.TimeoutExpired:
            wrong[name] = "cut off, the time is up: 'make bench-long' has no limit"
        else:
            if code:
                wrong[name] = f"failed ({code}), its message is above"
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for; 1 if a group has no whole result."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("groups", nargs="*", help=f"which to run (default: all): {', '.join(groups())}")
    parser.add_argument("--long", action="store_true", help="no limit of time; train what a group needs trained")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="JSON file (default: %(default)s)")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.only:
        try:
            measure_group(args.only, args.long, args.out)
        except NotMeasured as reason:
            print(f"{args.only}: not measured: {reason}", flush=True)
        return 0
    unknown = [name for name in args.groups if name not in groups()]
    if unknown:
        parser.error(f"no group {unknown[0]}: the groups are {', '.join(groups())}")
    wrong = run(args.groups or groups(), args.long, args.out)
    for name, reason in wrong.items():
        print(f"{name}: {reason}", file=sys.stderr)
    print(f"written to {args.out}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
