"""``proxybyte quickstart`` again and interrupted: nothing is done twice, and Ctrl-C saves."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxybyte.cli import main
from proxybyte.training.commands import quickstart

SMALL = ("--max-mb", "0.6", "plan.budget=9_600", "plan.row_length=64")
ONE_ROW = ("batch.rows_per_step=1", "batch.rows_per_device=1")
SMALL_RUN = (*SMALL, *ONE_ROW, "evaluation.every=0", "log.trackers=[]", "log.plot=false", "checkpoint.every=20")


def finished_tour(out: Path) -> None:
    """What each step leaves behind, and what stock Transformers said."""
    for step in quickstart.steps(out, 24, []):
        step.made.parent.mkdir(parents=True, exist_ok=True)
        step.made.touch()
    (out / "stock.txt").write_text("LlamaForCausalLM, 320 symbols\n# Copyright 2025 The end\n")


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The commands of the child processes that are started; each is started in earnest."""
    commands = []

    class Recorded(subprocess.Popen):
        def __init__(self, words, *rest, **options):
            commands.append(list(words))
            super().__init__(words, *rest, **options)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return commands


def test_a_tour_that_is_done_starts_no_process(tmp_path, capsys, started):
    finished_tour(tmp_path)
    assert main(["quickstart", "--out", str(tmp_path)]) == 0
    assert started == []
    out = capsys.readouterr().out
    made = ("corpus/corpus.json", "bpe/compressor.json", "prepared/prepared.json", "run/model/config.json")
    for name in (*made, "native/config.json", "run/report.html"):
        assert f"{tmp_path / name} is there already" in out
    assert out.count("is there already") == 6
    assert "# Copyright 2025 The end" in out
    assert "type next" in out


def test_only_what_is_missing_is_done_again(tmp_path, capfd, started):
    """The export is gone: it alone is run, and what it refuses (the run is an empty file) ends the tour."""
    finished_tour(tmp_path)
    (tmp_path / "native" / "config.json").unlink()
    assert main(["quickstart", "--out", str(tmp_path)]) == 2
    ((*_, module, command, source),) = [words[:5] for words in started]
    assert (module, command, source) == ("proxybyte.cli", "export", str(tmp_path / "run"))
    out, err = capfd.readouterr()
    assert out.count("is there already") == 4
    assert f"stopped in step 5; what is finished stays: 'proxybyte quickstart --out {tmp_path}' goes on" in err


@pytest.mark.slow
def test_ctrl_c_while_it_trains_saves_and_the_same_command_goes_on(tmp_path):
    words = [sys.executable, "-m", "proxybyte.cli", "quickstart", "--out", "tour", *SMALL_RUN]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a process group of its own, which a terminal's Ctrl-C reaches as one
    )
    checkpoints, deadline = tmp_path / "tour" / "run" / "checkpoints", time.monotonic() + 200
    try:
        while not list(checkpoints.glob("step-*[0-9]")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    (step,) = re.findall(r"stopped after step (\d+), which is saved: the same command goes on from there", said)
    assert (checkpoints / f"step-{int(step):08d}" / "model" / "config.json").is_file()
    assert not (tmp_path / "tour" / "run" / "model").exists()
    (again,) = re.findall(r"stopped in step 4; what is finished stays: '(.*)' goes on from there", said)
    done = subprocess.run(
        [sys.executable, "-m", "proxybyte.cli", *shlex.split(again)[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is there already") == 3  # corpus, compressor, both views
    assert re.search(rf"going on from \S*step-{int(step):08d}", done.stdout + done.stderr)
    assert "type next" in done.stdout
