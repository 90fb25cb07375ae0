"""Many untrusted programs side by side."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from proxybyte.eval.sandbox.limits import Limits, Outcome, Trial, Wall
from proxybyte.eval.sandbox.runner import Launcher
from proxybyte.progress import Progress


def run_programs(
    programs: Sequence[Trial | str],
    limits: Limits,
    wall: Wall,
    *,
    workers: int | None = None,
    progress: bool = False,
    on_outcome: Callable[[Trial | str, Outcome], None] | None = None,
) -> list[Outcome]:
    """Outcome of each of ``programs``; equal programs run once.

    Args:
        programs: code with tests, or code alone.
        limits: of each program alone.
        wall: see :func:`choose_wall`.
        workers: how many run at once; one a core by default.
        progress: show a bar on stderr.
        on_outcome: told each program and its outcome as they come, from this thread.

    Raises:
        SandboxBroken: if the wall cannot be built; programs not yet started are dropped.
    """
    outcomes: dict[Trial | str, Outcome] = {}
    distinct = list(dict.fromkeys(programs))
    with Progress(total=len(distinct), desc="running tests", unit="program", disable=not progress) as bar:
        for program, outcome in _run_each(distinct, limits, wall, workers or usable_cores()):
            outcomes[program] = outcome
            if on_outcome is not None:
                on_outcome(program, outcome)
            bar.update()
    return [outcomes[program] for program in programs]


def _run_each(
    programs: Sequence[Trial | str], limits: Limits, wall: Wall, workers: int
) -> Iterator[tuple[Trial | str, Outcome]]:
    mine = threading.local()
    launchers = []

    def run(program: Trial | str) -> Outcome:
        if not hasattr(mine, "launcher"):
            mine.launcher = Launcher()
            launchers.append(mine.launcher)
        return mine.launcher.run(program, limits, wall)

    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(run, program): program for program in programs}
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for launcher in launchers:
                launcher.close()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
