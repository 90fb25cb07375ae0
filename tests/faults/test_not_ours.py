"""What a command did not write it does not remove: a folder that holds more is refused with the names."""

import shutil
import subprocess
from pathlib import Path

import pytest

from proxybyte.cli import main

REPLACE = {"export": ["--force"], "corpus": ["--overwrite"]}
"""What lets a command replace an earlier output of its own."""
STRANGERS = {
    "export": [".git/HEAD", "README.old.md"],
    "prepare": ["run/model/model.safetensors", "run/config.yaml"],
    "corpus": ["notes.txt"],
    "compressor fit neural": ["fit.checkpoint.safetensors.old"],
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_earlier_output_with_something_else_in_it_is_refused_with_the_names(command, inputs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(inputs.words(command, out)) == 0
    strangers = STRANGERS.get(command, ["mine/notes.txt"])
    for name in strangers:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("of another")
    before = content(out)
    again = [*inputs.words(command, out, other=True), *REPLACE.get(command, [])]
    capsys.readouterr()
    assert main(again) == 2
    said = capsys.readouterr().err
    assert str(out) in said
    if command != "convert evabyte":  # it never replaces anything
        for name in strangers:
            assert name.split("/")[0] in said
    assert content(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for name in strangers:
        path = out / name.split("/")[0]
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
    capsys.readouterr()
    assert main(again) == (2 if command == "convert evabyte" else 0)
    assert content(out).keys().isdisjoint(strangers)


def test_a_clone_of_a_repository_is_refused_and_keeps_its_files(command, inputs, tmp_path, capsys):
    out = tmp_path / "clone"
    subprocess.run(["git", "init", "--quiet", str(out)], check=True)
    (out / "model.safetensors").write_bytes(b"weights of another")
    before = content(out)
    capsys.readouterr()
    assert main([*inputs.words(command, out), *REPLACE.get(command, [])]) == 2
    said = capsys.readouterr().err
    assert str(out) in said
    if command != "convert evabyte":
        assert ".git" in said and "model.safetensors" in said
    assert content(out) == before


def test_a_run_in_a_folder_with_other_files_keeps_them(inputs, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / "notes.txt").write_text("of another")
    assert main(inputs.words("train", out)) == 0
    assert (out / "notes.txt").read_text() == "of another"
    assert (out / "model" / "model.safetensors").exists()
    other = tmp_path / "other"
    (other / "model").mkdir(parents=True)
    (other / "model" / "notes.txt").write_text("of another")
    capsys.readouterr()
    assert main(inputs.words("train", other)) == 2  # and not when all steps are done
    assert f"{other / 'model'} exists and is no earlier output" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["out", "out/"])
def test_a_link_to_a_folder_is_written_through(inputs, tmp_path, name):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "out").symlink_to(real)
    assert main(inputs.words("compressor fit bpe", Path(f"{tmp_path}/{name}"))) == 0
    assert (real / "compressor.json").exists()
    assert (tmp_path / "out").is_symlink()
