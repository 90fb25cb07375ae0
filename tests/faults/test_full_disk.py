"""A disk that takes no more, met by every command: one sentence with the place and what is free; then it goes on."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from proxybyte.cli import main

from .conftest import LLAMA, Inputs

PAGE = 4096
PROBLEM = {
    "task_id": "t/0",
    "prompt": "def one():\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(f):\n    assert f() == 1\n",
}
STAY = {"prepare": {"out.partial"}, "train": {"out"}, "experiment run": {"out"}, "eval code": {"out"}}
"""What a command that is cut off leaves, to go on from."""
OTHERS = ["train", "export full", "eval code", "experiment run", "compressor report", "report"]


def words_of(command: str, inputs: Inputs, out: Path) -> list[str]:
    here = inputs.folder
    if command == "export full":
        return inputs.words("export", out, other=True)
    if command == "eval code":
        (here / "problems.jsonl").write_text(
            "".join(json.dumps({**PROBLEM, "task_id": f"t/{i}"}) + "\n" for i in (0, 1))
        )
        words = ["eval", "code", here / "run" / "model", "--data", here / "problems.jsonl", "--output", out]
        return [*map(str, words), "--generate-only", "--max-new", "4", "-n", "40", "-k", "1"]
    if command == "experiment run":
        plan = {
            "title": "tiny",
            "corpus": {"folder": str(here / "corpus")},
            "compressors": {"bpe": {"fit": "bpe", "options": {"symbols": 280}}},
            "models": {"one": {"backbone_config": LLAMA}},
            "arms": {"proxy": {"kind": "proxy", "compressor": "bpe"}},
            "seeds": [0],
            "match": {"by": "text_bytes", "budget": 4000},
            "train": {
                "precision": "float32",
                "plan": {"row_length": 64},
                "batch": {"rows_per_step": 4, "rows_per_device": 4},
                "compute": {"device": "cpu"},
            },
            "evaluation": {"points": 1, "documents": 2, "max_bytes": 50, "final_documents": 2, "final_max_bytes": 50},
        }
        (here / "plan.yaml").write_text(yaml.safe_dump(plan))
        return ["experiment", "run", str(here / "plan.yaml"), "--out", str(out), "--workers", "1"]
    if command == "compressor report":
        return ["compressor", "report", str(here / "bpe"), "--corpus", str(here / "corpus"), "--out", str(out)]
    if command == "report":
        return ["report", str(here / "run"), "--out", str(out / "page.html"), "--max-mb", "0.0001"]
    return inputs.words(command, out)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def sentence_of(said: str) -> str:
    assert "Traceback" not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("proxybyte: ")]
    return sentence


def check(command: str, free: int, inputs: Inputs, disk: Path, capsys) -> None:
    words, filler = words_of(command, inputs, disk / "out"), disk / "filler"
    filler.write_bytes(bytes(2 * 1024 * 1024 - free))
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


def test_a_limit_on_the_size_of_files_is_the_same_sentence(any_command, inputs, server, tmp_path):
    """Where nobody may mount."""
    words = inputs.words(any_command, tmp_path / "out")
    code, said = server.run(words, file_bytes=1000)
    assert code == 2, said
    assert str(tmp_path / "out") in sentence_of(said)
    assert {path.name for path in tmp_path.iterdir()} <= STAY.get(any_command, set())
