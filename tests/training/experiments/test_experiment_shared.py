"""Several processes in one plan's folder: each cell and each shared step once, and nothing is lost with a process."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxybyte.training.experiments.cell_run import launch
from proxybyte.training.experiments.runner import RunOptions, run_plan

CELLS = [f"{arm}-seed{seed}" for seed in (0, 1) for arm in ("bytes", "proxy", "tokenizer")]
LONG = {"match": {"budget": 1.0e9}, "seeds": [0]}
"""Three cells, long enough that a process can be met in the middle of one."""


@pytest.fixture
def start(tmp_path, server) -> Iterator[Callable[..., Any]]:
    """Starts ``proxybyte experiment run``; what is left of it afterwards is killed."""
    started: list[Any] = []

    def run(*words: object) -> Any:
        log = str(tmp_path / f"log{len(started)}")
        started.append(server.fork(["experiment", "run", *words], errors=False, log=log))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def log_of(tmp_path: Path, number: int) -> str:
    return (tmp_path / f"log{number}").read_text()


def wait_until(there: Callable[[], object], process: Any) -> None:
    deadline = time.monotonic() + 300
    while not there():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finished_cells(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("cells/*/result.json"))


def figures(folder: Path) -> dict[str, dict]:
    """Results by cell, without the time that they took."""
    found = {name: json.loads((folder / "cells" / name / "result.json").read_text()) for name in finished_cells(folder)}
    return {name: {**values, "seconds": 0} for name, values in found.items()}


def steps_trained(folder: Path, cell: str) -> list[int]:
    lines = map(json.loads, (folder / "cells" / cell / "run" / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["kind"] == "train"]


@pytest.mark.slow
def test_two_processes_from_nothing_make_everything_once(finished, plan_file, start, tmp_path):
    """Started together in an empty folder: one log or the other has each compressor, dataset and cell."""
    out = tmp_path / "out"
    processes = [start(plan_file(), "--out", out, "--workers", "1") for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0], log_of(tmp_path, 0) + log_of(tmp_path, 1)
    told = log_of(tmp_path, 0) + log_of(tmp_path, 1)
    assert told.count(f"making {out / 'shared' / 'compressors' / 'bpe'}\n") == 1
    assert told.count(f"making {out / 'shared' / 'prepared' / 'bpe'}\n") == 1
    assert {name: told.count(f"{name}: ") - told.count(f"{name}: {{") for name in CELLS} == dict.fromkeys(CELLS, 2)
    assert figures(out) == figures(finished)
    assert not list(out.rglob(".*.lock"))


@pytest.mark.slow
def test_a_second_process_takes_the_cells_that_the_first_has_not(finished, plan_file, start, tmp_path):
    """The first stands still in its cell: the second runs all others and says so; then the first ends."""
    out = tmp_path / "out"
    shutil.copytree(finished / "shared", out / "shared")
    first = start(plan_file(**LONG), "--out", out)
    wait_until(lambda: list(out.glob("cells/bytes-seed0/run/checkpoints/step-*[0-9]")), first)
    first.send_signal(signal.SIGSTOP)
    assert start(plan_file(**LONG), "--out", out).wait(timeout=300) == 0
    told = log_of(tmp_path, 1)
    assert "2 cells finished" in told
    assert "1 are being run by other processes: bytes-seed0" in told
    assert finished_cells(out) == ["proxy-seed0", "tokenizer-seed0"]
    before = {
        path: path.stat().st_mtime_ns for name in finished_cells(out) for path in (out / "cells" / name).rglob("*")
    }
    first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=300) == 0
    assert "3 cells finished" in log_of(tmp_path, 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_cell_whose_process_was_killed_is_taken_over_from_its_checkpoint(
    finished, plan_file, make_plan, start, tmp_path
):
    """By a process that had passed it over: once the others are done it looks again, and wastes no step of it."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    for folder in (out, whole):
        shutil.copytree(finished / "shared", folder / "shared")
    first = start(plan_file(**LONG), "--out", out)
    wait_until(lambda: list(out.glob("cells/bytes-seed0/run/checkpoints/step-*[0-9]")), first)
    first.send_signal(signal.SIGSTOP)
    second = start(plan_file(**LONG), "--out", out)
    wait_until(lambda: "proxy-seed0" in finished_cells(out), second)
    first.kill()
    first.wait()
    assert second.wait(timeout=300) == 0, log_of(tmp_path, 1)
    told = log_of(tmp_path, 1)
    assert "3 cells finished" in told
    assert told.index("tokenizer-seed0: ") < told.index("bytes-seed0: ")
    assert "going on from" in told
    steps = steps_trained(out, "bytes-seed0")
    assert steps == list(range(1, len(steps) + 1))
    run_plan(make_plan(**LONG), RunOptions(whole))
    assert figures(out) == figures(whole)
    assert not list(out.rglob("*.lock"))


WORKER = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def save(number, frame):
    (folder / "saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
(folder / "started.tmp").write_text(str(os.getpid()))
(folder / "started.tmp").rename(folder / "started")
time.sleep(600)
"""
LAUNCH = "import sys; from proxybyte.training.experiments.cell_run import launch; print(launch(sys.argv[1:]))"


def launching(tmp_path: Path) -> subprocess.Popen:
    """A process that launches a worker, which has started."""
    words = [sys.executable, "-c", LAUNCH, sys.executable, "-c", WORKER, str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    wait_until((tmp_path / "started").exists, process)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_launched_is_asked_to_stop_and_waited_for(tmp_path, number):
    process = launching(tmp_path)
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == f"{int(number)}\n"
    assert (tmp_path / "saved").exists()


def test_a_command_that_ends_by_itself_is_finished():
    assert launch([sys.executable, "-c", ""]) == 0
