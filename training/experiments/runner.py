"""A whole plan: every cell that is neither finished nor being run by another process."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_text
from proxybyte.locks import hold_if_free

from .cell_run import CellJob, clear_away, run_cell
from .grid import Cell, choose_cells, expand
from .results import load_result
from .schema import PLAN_FILE, ExperimentPlan
from .shared_data import Artefacts

_LOOK_SECONDS = 0.1


class TimeSlice:
    """Context that sends this process SIGTERM once, when its time is over and a run listens for it.

    A run that listens (``StopRequest``) saves a checkpoint and ends. What does not listen, such as the scoring of a
    finished run, is left to end by itself, and no cell is begun after it.

    Args:
        minutes: how long; no limit if absent.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._left = threading.Event()
        self._before: signal._HANDLER = signal.SIG_DFL

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self._end is not None and time.monotonic() >= self._end

    def __enter__(self) -> Self:
        if self._end is not None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._between)
            threading.Thread(target=self._watch, args=(self._end,), name="slice", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._end is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)

    def _between(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM where no run listens: our own came too late and is nothing; another's ends the process."""
        if not self.over:
            sys.exit(128 + number)

    def _watch(self, end: float) -> None:
        if self._left.wait(max(0.0, end - time.monotonic())):
            return
        while not self._left.wait(_LOOK_SECONDS):
            if signal.getsignal(signal.SIGTERM) != self._between:
                with suppress(ProcessLookupError):
                    os.kill(os.getpid(), signal.SIGTERM)
                return


log = logging.getLogger(__name__)

CELLS, SHARED = "cells", "shared"


@dataclass(frozen=True)
class RunOptions:
    """How to run a plan.

    Attributes:
        output: folder of the plan; processes that name the same one share the work.
        launcher: words that start the training entry on several processes; empty to train in this process.
        workers: processes for preparing data; 0 for one a core.
        minutes: after which to stop as a signal does; no limit if absent.
        cells: which cells, as :func:`.grid.choose_cells` reads it; ``None`` for all.
    """

    output: Path
    launcher: tuple[str, ...] = ()
    workers: int = 0
    cells: str | None = None
    minutes: float | None = None


@dataclass
class Progress:
    """What became of a plan's cells, by name, and the signal that asked to stop, 0 where none did."""

    finished: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    stopped_by: int = 0


def cell_folder(output: Path, cell: Cell) -> Path:
    """Where a cell lies."""
    return output / CELLS / cell.name


def run_plan(plan: ExperimentPlan, options: RunOptions) -> Progress:
    """Run what is left of a plan, cell by cell.

    A cell that fails does not keep the others from running. One that another process is running is passed over, and
    looked at again after the others: by then it is finished, or its process may have died.

    Raises:
        ProxyByteError: if the folder holds cells of another version of the plan, or the shared data cannot be made.
    """
    cells, progress = choose_cells(expand(plan), options.cells), Progress()
    for cell in cells:
        load_result(cell_folder(options.output, cell), cell)
    _note_plan(plan, options.output)
    left = cells
    with TimeSlice(options.minutes) as time_slice:
        while left and progress.stopped is None:
            held = _one_round(left, _Job(plan, options, progress, len(cells), time_slice))
            if len(held) == len(left):
                break
            left = held
    progress.elsewhere = [cell.name for cell in left]
    return progress


@dataclass(frozen=True)
class _Job:
    """What a round over the cells works with."""

    plan: ExperimentPlan
    options: RunOptions
    progress: Progress
    total: int
    time_slice: TimeSlice


def _note_plan(plan: ExperimentPlan, output: Path) -> None:
    """Write the plan for the report; whoever has the claim, since processes that start at once hold the same plan."""
    output.mkdir(parents=True, exist_ok=True)
    with hold_if_free(output / PLAN_FILE) as mine:
        if mine:
            write_text(output / PLAN_FILE, json.dumps(plan.model_dump(mode="json"), indent=1))


def _one_round(cells: Sequence[Cell], job: _Job) -> list[Cell]:
    """Run each cell that is neither finished nor being run elsewhere; the ones that are, in their order."""
    shared = Artefacts(job.plan, job.options.output / SHARED, job.options.workers)
    held = []
    for cell in cells:
        folder = cell_folder(job.options.output, cell)
        if load_result(folder, cell) is not None:
            clear_away(folder)  # its process may have been killed behind its last write
            job.progress.finished.append(cell.name)
            continue
        if job.time_slice.over:
            job.progress.stopped = cell.name
            break
        with hold_if_free(folder) as mine:
            if not mine:
                held.append(cell)
                continue
            # Under the claim, so that others pass the cell over instead of waiting for the same data.
            data = shared.prepared(cell.compressor)
            work = CellJob(folder, data, job.plan.match.by, job.plan.evaluation, job.options.launcher)
            ended = len(job.progress.finished) + len(job.progress.failed)
            log.info("cell %s, %d of %d are done", cell.name, ended, job.total)
            if not _run_one(cell, work, job.progress):
                break
    return held


def _run_one(cell: Cell, job: CellJob, progress: Progress) -> bool:
    """Run a claimed cell, unless another process finished it just before; ``False`` to stop the plan."""
    try:
        result = load_result(job.folder, cell) or run_cell(cell, job)
    except ProxyByteError as error:
        log.error("%s failed: %s", cell.name, error)
        progress.failed[cell.name] = str(error)
        return True
    if isinstance(result, int):
        progress.stopped, progress.stopped_by = cell.name, result
        return False
    log.info("%s: %.4f bits per byte", cell.name, result.bits_per_byte)
    progress.finished.append(cell.name)
    return True
