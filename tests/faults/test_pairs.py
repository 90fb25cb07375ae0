"""Two commands in one output folder: the second is refused by the first one's name, whatever the command."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxybyte.checksums import read_record, verify_folder
from proxybyte.cli import main


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextmanager
def met(server, words: list[str], place: str, after: bool = False) -> Iterator[int]:
    """A command that stands still at a function, for as long as the block takes; its process."""
    process = server.start(words, at=place, after=after, signal=signal.SIGSTOP)
    try:
        until = time.monotonic() + 120
        while not stopped(process):
            assert time.monotonic() < until
            time.sleep(0.01)
        yield process
    finally:
        os.kill(process, signal.SIGCONT)
        code, said = server.ended()
    assert code == 0, said


pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to see who stands still")


def test_the_second_command_is_refused_by_the_name_of_the_first(any_command, inputs, server, tmp_path, capsys):
    out = tmp_path / "out"
    with met(server, inputs.words(any_command, out), "proxybyte.locks:_take", after=True) as first:
        assert main(inputs.words(any_command, out, other=True)) == 2
        said = capsys.readouterr().err
    assert f"{out} is being written by process {first} on {socket.gethostname()}" in said
    home = out / "model" if any_command == "train" else out
    assert read_record(home) is not None
    verify_folder(home)
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left beside it"


@pytest.mark.parametrize("other", [False, True], ids=["same", "other"])
def test_samples_are_written_by_one_process(other, inputs, server, tmp_path, capsys):
    out = tmp_path / "out"
    with met(server, inputs.words("eval code", out), "proxybyte.eval.code.generating:generate_samples") as first:
        assert main(inputs.words("eval code", out, other=other)) == 2
        said = capsys.readouterr().err
    assert f"{out / 'samples.jsonl'} is being written by process {first} on {socket.gethostname()}" in said
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [(line["task_id"], line["number"]) for line in lines[1:]] == [
        (f"t/{i}", n) for i in (0, 1) for n in range(40)
    ]
    assert [path.name for path in out.iterdir()] == ["samples.jsonl"]


def test_a_cell_is_run_by_one_process(inputs, server, tmp_path, capsys, caplog):
    out = tmp_path / "out"
    words = inputs.words("experiment run", out)
    with met(server, words, "proxybyte.training.experiments.runner:run_cell"):
        assert main(words) == 0
        assert not list(out.rglob("result.json"))
    assert "1 are being run by other processes: proxy-seed0" in caplog.text + capsys.readouterr().out
    assert len(list(out.rglob("result.json"))) == 1
    assert not list(out.rglob("*.lock"))
