"""Two commands in one output folder: the second is refused by the first one's name, whatever the command."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from proxybyte.checksums import read_record, verify_folder
from proxybyte.cli import main


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to see whether a process stands still")
def test_the_second_command_is_refused_by_the_name_of_the_first(any_command, inputs, server, tmp_path, capsys):
    out = tmp_path / "out"
    # In the midst of its work, for as long as the other takes.
    first = server.start(inputs.words(any_command, out), at="proxybyte.locks:_take", after=True, signal=signal.SIGSTOP)
    try:
        until = time.monotonic() + 120
        while not stopped(first):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert main(inputs.words(any_command, out, other=True)) == 2
        said = capsys.readouterr().err
    finally:
        os.kill(first, signal.SIGCONT)
        code, words = server.ended()
    assert f"{out} is being written by process {first} on {socket.gethostname()}" in said
    assert code == 0, words
    home = out / "model" if any_command == "train" else out
    assert read_record(home) is not None
    verify_folder(home)
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left beside it"
