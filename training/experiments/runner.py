"""A whole plan: every cell that is neither finished nor being run by another process."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_text

from .artefacts import Artefacts
from .cell_run import CellJob, run_cell
from .claims import claim
from .grid import Cell, expand
from .results import load_result
from .schema import ExperimentPlan

log = logging.getLogger(__name__)

PLAN_FILE = "plan.json"
CELLS, SHARED = "cells", "shared"


@dataclass(frozen=True)
class RunOptions:
    """How to run a plan.

    Attributes:
        output: folder of the plan; processes that name the same one share the work.
        launcher: words that start the training entry on several processes; empty to train in this process.
        workers: processes for preparing data; 0 for one a core.
    """

    output: Path
    launcher: tuple[str, ...] = ()
    workers: int = 0


@dataclass
class Progress:
    """What became of a plan's cells, by name."""

    finished: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None


def cell_folder(output: Path, cell: Cell) -> Path:
    """Where a cell lies."""
    return output / CELLS / cell.name


def run_plan(plan: ExperimentPlan, options: RunOptions) -> Progress:
    """Run what is left of a plan, cell by cell.

    A cell that fails does not keep the others from running.

    Raises:
        ProxyByteError: if the folder holds cells of another version of the plan, or the shared data cannot be made.
    """
    cells, progress = expand(plan), Progress()
    for cell in cells:
        load_result(cell_folder(options.output, cell), cell)
    options.output.mkdir(parents=True, exist_ok=True)
    write_text(options.output / PLAN_FILE, json.dumps(plan.model_dump(mode="json"), indent=1))
    shared = Artefacts(plan, options.output / SHARED, options.workers)
    for cell in tqdm(cells, desc="cells", unit="cell", delay=2):
        folder = cell_folder(options.output, cell)
        if load_result(folder, cell) is not None:
            progress.finished.append(cell.name)
            continue
        data = shared.prepared(cell.compressor)
        with claim(folder) as mine:
            if not mine:
                progress.elsewhere.append(cell.name)
                continue
            job = CellJob(folder, data, plan.match.by, plan.evaluation, options.launcher)
            if not _run_one(cell, job, progress):
                break
    return progress


def _run_one(cell: Cell, job: CellJob, progress: Progress) -> bool:
    """Run a claimed cell, unless another process finished it just before; ``False`` to stop the plan."""
    try:
        result = load_result(job.folder, cell) or run_cell(cell, job)
    except ProxyByteError as error:
        log.error("%s failed: %s", cell.name, error)
        progress.failed[cell.name] = str(error)
        return True
    if result is None:
        progress.stopped = cell.name
        return False
    log.info("%s: %.4f bits per byte", cell.name, result.bits_per_byte)
    progress.finished.append(cell.name)
    return True
