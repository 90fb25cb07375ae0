"""What every group of benchmarks needs: the row of a figure, the best time of several, memory, one core."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Figure = dict[str, Any]
"""``name``, ``value``, ``unit``, ``baseline``, ``ratio``."""
HERE = Path(__file__).parent


def figure(name: str, value: float, baseline: float, unit: str) -> Figure:
    """The row of a figure of which more is better, beside its baseline."""
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "ratio": value / baseline}


def fastest(
    work: Callable[[], Any], repeats: int = 3, clock: Callable[[], float] = time.process_time
) -> tuple[float, Any]:
    """Seconds of the fastest of ``repeats`` calls, by ``clock``, and what ``work`` returned last."""
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        result = work()
        best = min(best, clock() - start)
    return best, result


class NotMeasured(Exception):
    """What a group needs is not here; the message says how to make it."""


@contextmanager
def one_core() -> Iterator[None]:
    """One thread for everything inside."""
    import torch  # here, because to measure memory alone takes none of it

    threads, asked = torch.get_num_threads(), os.environ.get("RAYON_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["RAYON_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        del os.environ["RAYON_NUM_THREADS"]
        if asked is not None:
            os.environ["RAYON_NUM_THREADS"] = asked


def peak_growth_mb(work: Callable[[], Any]) -> float:
    """MB (10^6 bytes) by which ``work`` raises this process's peak of resident memory above what it holds before.

    The peak of a new process starts at its parent's (``ru_maxrss``) or at its own earlier one; here it is set back
    to what is resident now first, so that what anybody held before does not hide the growth.

    Raises:
        RuntimeError: if the system cannot set it back, or nothing was seen to grow: there is no figure then.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise RuntimeError(f"the peak of memory cannot be set back (/proc/self/clear_refs: {error})") from error
    before = _status_kb("VmHWM")
    work()
    grown = (_status_kb("VmHWM") - before) * 1024 / 1e6
    if grown < 1.0:
        raise RuntimeError(
            f"memory grew by {grown:.3f} MB, which is no figure: the peak was not set back, or no work done"
        )
    return grown


def in_a_process(expression: str) -> list[float]:
    """The numbers that ``expression``, which begins with a module of this folder, gives in a fresh process."""
    module = expression.partition(".")[0]
    script = f"import sys; sys.path.insert(0, {str(HERE)!r}); import {module}; print(*({expression}))"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def _status_kb(key: str) -> int:
    lines = Path("/proc/self/status").read_text().split("\n")
    return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))
