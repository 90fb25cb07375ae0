"""``proxybyte doctor``: what this machine and installation bring, beside the set of versions that is tested."""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from proxybyte.cli import WAIT_POLICY, Command

EXAMPLES = "  proxybyte doctor\n  proxybyte doctor --no-torch"
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
_EXTRA = re.compile(r"""extra == ["']([\w-]+)["']""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--no-torch", action="store_true", help="leave out what only torch can say (seconds)")


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 where something that is needed is absent or older than needed by this package."""
    needed, optional, tested = _declared()
    broken = [line for line in (_wrong(name) for name in sorted(needed)) if line]
    print("packages (installed, tested with)")
    for name in sorted(needed | set(optional), key=str.lower):
        print("  " + _package(name, tested.get(name), optional.get(name)))
    print("machine")
    for what, value in (*_machine(), *(() if args.no_torch or "torch" in "".join(broken) else _torch())):
        print(f"  {what:<22} {value}")
    for line in broken:
        print(f"proxybyte: {line}", file=sys.stderr)
    print("all that is needed is here" if not broken else "next: pip install the packages named above")
    return 1 if broken else 0


def _declared() -> tuple[set[str], dict[str, str], dict[str, str]]:
    """From the package's own metadata: what is needed, what belongs to which extra, and the tested versions."""
    needed: set[str] = set()
    optional: dict[str, str] = {}
    tested: dict[str, str] = {}
    for line in requires("proxybyte") or ():
        extra = _EXTRA.search(line)
        name = _plain(re.split(r"[<>=!~;\s\[]", line, maxsplit=1)[0])
        if extra is None:
            needed.add(name)
        elif extra[1] == "tested":
            tested[name] = line.split("==")[1].split(";")[0].strip()
        elif extra[1] != "dev":
            optional.setdefault(name, extra[1])
    return needed, {name: extra for name, extra in optional.items() if name not in needed}, tested


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _wrong(name: str) -> str | None:
    return None if _installed(name) else f"{name} is not installed, and every command may need it"


def _package(name: str, tested: str | None, extra: str | None) -> str:
    found = _installed(name)
    belongs = f"  (extra {extra!r})" if extra else ""
    if found is None:
        return f"{name:<22} {'absent':<16} {tested or '':<12}{belongs or '  needed'}"
    other = tested is not None and found.split("+")[0] != tested
    return f"{name:<22} {found:<16} {tested or '':<12}{belongs}{'  other than tested' if other else ''}".rstrip()


def _machine() -> Iterator[tuple[str, str]]:
    import psutil

    from proxybyte.training.machine import host_memory

    cpus = Path("/proc/cpuinfo")
    text = cpus.read_text(encoding="utf-8", errors="replace") if cpus.is_file() else ""
    words = set(next((line for line in text.splitlines() if re.match(r"(flags|Features)\s*:", line)), "").split())
    name = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    free = psutil.virtual_memory().available
    able = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "python", sys.version.split()[0]
    yield "processor", name or "unknown"
    yield "instructions", " ".join(flag for flag in _FLAGS if flag in words) or "none of " + " ".join(_FLAGS)
    yield "processors to use", str(able)
    for variable in ("OMP_NUM_THREADS", WAIT_POLICY):
        yield variable, os.environ.get(variable, "not set")
    yield "memory", f"{free / 1e9:.1f} GB free of {host_memory() / 1e9:.1f}"
    yield "disk here", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB free"


def _torch() -> Iterator[tuple[str, str]]:
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    yield "accelerator", "none" if accelerator is None else f"{torch.accelerator.device_count()} x {accelerator.type}"
    yield "torch's threads", str(torch.get_num_threads())


COMMAND = Command("versions, processor, memory and disk, beside what is tested", EXAMPLES, add_arguments, run)
