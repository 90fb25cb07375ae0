"""A disk that takes no more, met by every command: one sentence with the place and what is free; then it goes on."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxybyte.cli import main

PAGE = 4096
DISK = 8 * 1024 * 1024
STAY = {
    "compressor fit neural": {"out.fit"},
    "compressor report": {"out"},
    "eval code": {"out"},
    "experiment run": {"out"},
    "prepare": {"out.partial"},
    "report": {"out"},
    "train": {"out"},
}
"""What a command that is cut off leaves: what it goes on from, and the folder of outputs that are several files."""
OTHERS = ["train", "export full", "eval code", "experiment run", "compressor report", "report"]


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def sentence_of(said: str) -> str:
    assert "Traceback" not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("proxybyte: ")]
    return sentence


def check(command: str, free: int, inputs, disk: Path, capsys) -> None:
    words, filler = inputs.words(command, disk / "out"), disk / "filler"
    filler.write_bytes(bytes(DISK - free))
    capsys.readouterr()
    code = main(words)
    if code or free <= 2 * PAGE:
        assert code == 2
        sentence = sentence_of(capsys.readouterr().err)
        assert str(disk / "out") in sentence
        assert re.search(rf"[\d.]+ MB are free( in {disk}|\))", sentence), sentence
        assert {path.name for path in disk.iterdir()} <= {"filler", *STAY.get(command, set())}
    filler.unlink()
    assert main(words) == 0
    assert [path.name for path in disk.iterdir()] == ["out"]


@pytest.mark.parametrize("other", OTHERS)
def test_other_commands_on_a_full_disk(other, inputs, disk, capsys):
    check(other, 2 * PAGE, inputs, disk, capsys)


def test_commands_that_write_a_folder_on_a_full_disk(command, inputs, disk, capsys):
    check(command, 2 * PAGE, inputs, disk, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 4, 8, 16, 32, 64])
def test_folders_on_a_disk_that_is_nearly_full(command, free, inputs, disk, capsys):
    check(command, free * PAGE, inputs, disk, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("other", OTHERS)
def test_others_on_a_disk_that_is_nearly_full(other, free, inputs, disk, capsys):
    check(other, free * PAGE, inputs, disk, capsys)


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_the_same_sentence(any_command, inputs, server, tmp_path):
    """Where nobody may mount."""
    words = inputs.words(any_command, tmp_path / "out")
    code, said = server.run(words, file_bytes=1000)
    assert code == 2, said
    assert str(tmp_path / "out") in sentence_of(said)
    assert {path.name for path in tmp_path.iterdir()} <= STAY.get(any_command, set())
