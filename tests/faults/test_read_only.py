"""A folder that nothing can be written into: as the output, one sentence that names it; as the input, no hindrance."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from soak_inputs import COMMANDS, Inputs

from proxybyte.checksums import read_record
from proxybyte.cli import main

OTHERS = ["train", "experiment run", "compressor report", "report", "eval code"]


def mounted(place: Path, *words: str) -> None:
    """Mount at ``place``, or skip where nobody may."""
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", *words, str(place)], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")


@pytest.fixture
def read_only(tmp_path) -> Iterator[Path]:
    """A file system without room for anything, because it cannot be written."""
    place = tmp_path / "place"
    mounted(place, "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def read_only_inputs(inputs, tmp_path) -> Iterator[Inputs]:
    """All inputs, where they cannot be changed nor anything put beside them."""
    place = tmp_path / "inputs"
    mounted(place, "--bind", str(inputs.folder))
    mounted(place, "-o", "remount,bind,ro")
    yield Inputs(place)
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", [*COMMANDS, *OTHERS])
def test_an_output_that_cannot_be_written_is_one_sentence_that_names_it(name, inputs, read_only, capsys):
    assert main(inputs.words(name, read_only / "out")) == 2
    said = capsys.readouterr().err
    (sentence,) = [line for line in said.splitlines() if line.startswith("proxybyte: ")]
    assert str(read_only) in sentence
    assert "Traceback" not in said
    assert not any(read_only.iterdir())


@pytest.mark.parametrize("name", [*COMMANDS, *OTHERS])
def test_inputs_that_cannot_be_written_are_read(name, read_only_inputs, tmp_path):
    words = read_only_inputs.words(name, tmp_path / "out")
    if name == "train":  # its recipe names the data where they lie for everybody
        words += [f"data={read_only_inputs.folder / 'prepared'}"]
    assert main(words) == 0
    assert name not in COMMANDS or read_record(tmp_path / "out") is not None
