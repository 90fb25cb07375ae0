"""Two commands in one output folder: the second is refused by the first one's name, whatever the command."""

import signal
import socket
import time

import pytest

from proxybyte.checksums import read_record, verify_folder
from proxybyte.cli import main
from proxybyte.locks import lock_path

COMMANDS = [
    "corpus",
    "compressor fit bpe",
    "compressor fit neural",
    "compressor compile",
    "prepare",
    "train",
    "export",
    "byteify",
    "adapter merge",
    "convert evabyte",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_command_is_refused_by_the_name_of_the_first(command, inputs, ended, tmp_path, capsys):
    out = tmp_path / "out"
    first = inputs.start(inputs.words(command, out))
    while not (lock_path(out).exists() and lock_path(out).read_text()):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)  # in the midst of its work, for as long as the other takes
    assert lock_path(out).exists(), "it had ended already: give it more work"
    try:
        assert main(inputs.words(command, out, other=True)) == 2
    finally:
        first.send_signal(signal.SIGCONT)
    said = capsys.readouterr().err
    assert f"{out} is being written by process {first.pid} on {socket.gethostname()}" in said
    code, words = ended(first)
    assert code == 0, words
    home = out / "model" if command == "train" else out
    assert read_record(home) is not None
    verify_folder(home)
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left beside it"
