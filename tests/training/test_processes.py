"""No process outlives the one that it works for, and one that hangs is named. Real processes, really killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from proxybyte.cli import main

BACKBONE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")


def start(*words, **options) -> subprocess.Popen:
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def below(process, count, ready=lambda _: True):
    """At least ``count`` processes that it has started, once each of that many is ``ready``."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        found = psutil.Process(process.pid).children(recursive=True)
        if sum(map(ready, found)) >= count:
            return found
        time.sleep(0.02)
    raise AssertionError("they did not start")


def none_left(processes, seconds):
    """Those still alive after so long, which are then killed."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    alive = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    return alive


@pytest.fixture
def text(tmp_path) -> Path:
    """Three megabytes of text as a corpus."""
    (tmp_path / "text").mkdir()
    for number in range(60):
        line = f"def function_{number}(self, value): return value + {number}\n"
        (tmp_path / "text" / f"{number}.py").write_text("".join(f"{i} {line}" for i in range(900)))
    corpus = tmp_path / "corpus"
    assert main(["corpus", str(tmp_path / "text"), "--suffixes", ".py", "--out", str(corpus)]) == 0
    return corpus


@pytest.mark.parametrize("seconds", [0.0, 0.5, 3.0])
def test_workers_of_prepare_end_with_its_main_process(text, tmp_path, seconds):
    words = ("-m", "proxybyte.cli", "prepare", text, "--compressor", "gzip", "--out", tmp_path / "out", "--workers", 2)
    process = start(*words)
    children = below(process, 2, lambda child: "spawn_main" in " ".join(child.cmdline()))
    time.sleep(seconds)
    children = {*children, *psutil.Process(process.pid).children(recursive=True)}
    process.kill()
    process.communicate()
    assert none_left(children, 15) == []


CHILD = """
import subprocess, sys, time
from proxybyte.training.machine import ends_with_this_process
child = subprocess.Popen(["sleep", "100"], preexec_fn=ends_with_this_process())
print(child.pid, flush=True)
time.sleep(100)
"""


def test_a_command_that_we_start_ends_with_us():
    process = start("-c", CHILD)
    child = psutil.Process(int(process.stdout.readline()))
    assert child.name() == "sleep"
    process.kill()
    process.communicate()
    assert none_left([child], 5) == []


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A run over conversations that takes minutes."""
    (tmp_path / "chats.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n' * 40
    )
    values = {
        "output": str(tmp_path / "run"),
        "data": str(tmp_path / "chats.jsonl"),
        "model": {"backbone_config": BACKBONE},
        "plan": {"row_length": 64, "budget": 10_000, "budget_unit": "epochs"},
        "batch": {"rows_per_step": 2, "rows_per_device": 1},
        "log": {"every": 1, "trackers": [], "plot": False},
        "evaluation": {"every": 0},
        "checkpoint": {"every": 1000000},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def launch(recipe, *overrides):
    """Two ranks of a run under torchrun, and their processes by rank."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    process = start(*torchrun, "proxybyte.training.train", "--config", recipe, "compute.device=cpu", *overrides)
    # Between its fork and its start a rank still has the launcher's command line, but no rank.
    found = below(process, 2, lambda child: rank_of(child) is not None)
    return process, {rank: child for child in found if (rank := rank_of(child)) is not None}


def rank_of(child):
    """The rank that a process trains as; between its fork and its start it has none, though its launcher's words."""
    try:
        return child.environ().get("RANK") if "proxybyte.training.train" in child.cmdline() else None
    except psutil.Error:  # it has ended
        return None


def until_it_trains(process, folder):
    metrics = folder / "run" / "metrics.jsonl"
    while not metrics.exists() or metrics.stat().st_size == 0:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def test_ranks_end_with_their_launcher(recipe, tmp_path):
    process, ranks = launch(recipe)
    until_it_trains(process, tmp_path)
    process.kill()
    assert none_left(ranks.values(), 5) == []
    process.communicate()


@pytest.mark.slow
def test_ranks_whose_launcher_dies_while_they_load_do_not_train(recipe, tmp_path):
    process, ranks = launch(recipe)
    process.kill()
    assert none_left(ranks.values(), 60) == []
    process.communicate()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("stopped", [pytest.param("0", marks=pytest.mark.slow), "1"])
def test_a_rank_that_hangs_is_named(recipe, tmp_path, stopped):
    process, ranks = launch(recipe, "compute.timeout=3")
    until_it_trains(process, tmp_path)
    ranks[stopped].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    said = b""
    for line in process.stderr:
        said += line
        if b"no sign of life" in line:
            break
    assert time.monotonic() - began < 30
    ranks[stopped].kill()  # the launcher would wait half a minute for it
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert f"process {stopped} of 2 (pid {ranks[stopped].pid} on ".encode() in said
    assert b"has given no sign of life for 3 s" in said


def test_a_rank_whose_fellow_was_killed_says_so_in_one_sentence(recipe, tmp_path):
    process, ranks = launch(recipe)
    until_it_trains(process, tmp_path)
    ranks["1"].kill()
    said = process.communicate(timeout=120)[1].decode()
    (sentence,) = [line for line in said.splitlines() if line.startswith("proxybyte: ")]
    assert "another process of this run has ended" in sentence
    assert none_left(ranks.values(), 15) == []
