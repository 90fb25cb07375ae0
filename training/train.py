"""Train a model from a recipe: ``python -m proxybyte.training.train --config RECIPE [key.sub=value ...]``.

The same entry runs under ``accelerate launch -m``, under ``torchrun -m``, and in one process as ``proxybyte train``.
"""

import argparse
import functools
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from proxybyte.cli import Parser, report_fault, take_common_flags
from proxybyte.errors import ProxyByteError
from proxybyte.faults import disk_full_sentence
from proxybyte.hub_configs import load_preset
from proxybyte.locks import hold
from proxybyte.privacy import keep_logs_discreet, without_secrets

from .machine import exit_code, fellow_gone
from .run.assemble import (
    PLOT_FILE,
    assemble,
    check_final,
    is_finished,
    open_data,
    open_stage,
    resumed,
    start_trackers,
    tidy_final,
    what_next,
    write_final,
)
from .run.config import TrainConfig
from .run.config_io import resolve, save_config, to_yaml
from .run.distributed import Stage
from .run.dry_run import dry_run
from .run.loop import Loop, Run
from .run.metrics import MetricsLog, Totals
from .run.options import EXAMPLES, add_arguments
from .signs_of_life import signs_of_life

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    Attributes:
        finished: whether it reached its last step; otherwise it was asked to stop and saved a checkpoint.
        step: finished optimizer steps.
        stopped_by: the signal that asked it to stop, 0 where it finished.
    """

    finished: bool
    step: int
    stopped_by: int = 0


def _one_at_a_time(work: Callable[[TrainConfig], Summary]) -> Callable[[TrainConfig], Summary]:
    """``work`` under the lock on the run's folder, which the first of its processes holds for all."""

    @functools.wraps(work)
    def locked(config: TrainConfig) -> Summary:
        with hold(config.output) if os.environ.get("RANK", "0") == "0" else nullcontext():
            return work(config)

    return locked


@_one_at_a_time
def train(config: TrainConfig) -> Summary:
    """Train as ``config`` says, going on from the run folder's newest whole checkpoint if it has one.

    Raises:
        ProxyByteError: if the data, the model, the number of processes or an earlier run in the folder does not fit,
            or the loss is not finite.
    """
    stage = open_stage(config)
    with signs_of_life(stage.world.rank, stage.world.size, config.compute.timeout):
        return _train(config, stage)


def _train(config: TrainConfig, stage: Stage) -> Summary:
    world = stage.world
    data = open_data(config)
    found = resumed(config, data, world)
    step, totals = (found[1].step, Totals.from_dict(found[1].totals)) if found else (0, Totals())
    done = is_finished(config, data, step)
    world.wait()
    if done:
        if world.is_main:
            tidy_final(config.output)
            log.info("the run in %s is finished: step %d of %d, nothing is left to train", config.output, step, step)
            log.info("%s", what_next(config, data))
        stage.accelerator.end_training()
        return Summary(True, step)
    if world.is_main:
        check_final(config.output)  # now, and not when all steps are done
    job = assemble(config, stage, data, found[0] if found else None)
    if world.is_main:
        _open_folder(config, step if found else None)  # a model that cannot be made leaves nothing behind
        log.info("%s", data.describe())
        if found:
            log.info("going on from %s", found[0])
    start_trackers(job, step if found else None)
    loop = Loop(job, step, totals)
    with _named_if_unwritable(config.output, loop):
        finished = loop.to_the_end()
        if finished:
            _finish(config, job)
    if world.is_main:
        stopped = f"stopped after step {loop.step}, which is saved: the same command goes on from there"
        log.info("%s", what_next(config, data) if finished else stopped)
    stage.accelerator.end_training()
    return Summary(finished, loop.step, 0 if finished else loop.stopped_by)


@contextmanager
def _named_if_unwritable(folder: Path, loop: Loop) -> Iterator[None]:
    """Say of a disk that takes no more at which step it was, and what of the run is safe."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        stands = f"the checkpoint of step {loop.saved} stands" if loop.saved else "there is no checkpoint yet"
        raise ProxyByteError(
            f"{folder} cannot be written at step {loop.step}: {error} ({shutil.disk_usage(folder).free / 1e6:,.0f} MB "
            f"are free); {stands}: make room, and the same command goes on from there"
        ) from error


def _open_folder(config: TrainConfig, begun: int | None) -> None:
    """Make the run folder ready to go on after step ``begun``; ``None`` to begin.

    Raises:
        ProxyByteError: if it cannot be written.
    """
    try:
        config.output.mkdir(parents=True, exist_ok=True)
        save_config(config, config.output)
        MetricsLog(config.output).cut(begun)
    except OSError as error:
        refused = f"the run folder {config.output} cannot be written: {error}"
        raise ProxyByteError(disk_full_sentence(error, config.output) or refused) from error


def _finish(config: TrainConfig, job: Run) -> None:
    if job.world.is_main:
        log.info("model in %s", write_final(config, job))
        if config.log.plot:
            log.info("curves in %s", config.output / PLOT_FILE)
    job.world.wait()


def run(arguments: argparse.Namespace) -> int:
    """Run the parsed command; returns the exit code."""
    if arguments.time and not arguments.dry_run:
        raise ProxyByteError("--time is a part of --dry-run: give both")
    resolved = resolve(arguments.config, arguments.overrides)
    config = resolved.config
    if arguments.print_config:
        if config.model.preset:
            load_preset(config.model.preset)
        _print(to_yaml(config))
        return 0
    if arguments.dry_run:
        _print(dry_run(resolved, arguments.time))
        return 0
    return exit_code(train(config).stopped_by)


def _print(text: str) -> None:
    """Print once, whatever the number of processes."""
    if _is_first():
        print(text.rstrip())


def _is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run in one process of a launch: 0 when finished or stopped by a signal, 2 for bad input (one sentence)."""
    first = _is_first()
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s")
    keep_logs_discreet()
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    parser = Parser(
        prog="python -m proxybyte.training.train",
        description="Train a model from a recipe.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    words, debug = take_common_flags(sys.argv[1:] if argv is None else argv)
    try:
        return run(parser.parse_args(words))
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
        told = fellow_gone(error) or error
        if not first and isinstance(told, ProxyByteError):
            return 2
        return report_fault(told)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
