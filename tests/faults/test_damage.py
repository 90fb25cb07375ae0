"""A flipped bit in what an interrupted command goes on from, or in what is loaded, is found."""

import os
import shutil

import pytest

from proxybyte.cli import main
from proxybyte.folders import partial_folder
from proxybyte.training.prepare import run as prepare_run


def flip(path, place=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("what", ["train/*.arrow", "done/*.json"])
def test_a_damaged_shard_of_an_interrupted_prepare_is_made_again(what, inputs, tmp_path, monkeypatch):
    assert main(inputs.words("prepare", tmp_path / "whole")) == 0

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_run, "publish_prepared", interrupted)
        assert main(inputs.words("prepare", tmp_path / "out")) == 130
    flip(sorted(partial_folder(tmp_path / "out").glob(what))[0])
    assert main(inputs.words("prepare", tmp_path / "out")) == 0
    assert (tmp_path / "out" / "SHA256SUMS").read_bytes() == (tmp_path / "whole" / "SHA256SUMS").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    assert not (tmp_path / "out" / "done").exists()


def test_damaged_data_and_weights_are_not_loaded(inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PROXYBYTE_SKIP_CHECKSUMS", raising=False)
    prepared, model = tmp_path / "prepared", tmp_path / "model"
    shutil.copytree(inputs.folder / "prepared", prepared)
    shutil.copytree(inputs.folder / "run" / "model", model)
    shard, weights = sorted((prepared / "train").glob("*.arrow"))[0], model / "model.safetensors"
    flip(shard)
    flip(weights, -5)
    train = ["train", "--config", str(inputs.folder / "recipe.yaml"), f"data={prepared}", f"output={tmp_path / 'run'}"]
    assert main(train) == 2
    assert f"{shard} is not what was written" in capsys.readouterr().err
    export = ["export", str(model), "--format", "native", "--out", str(tmp_path / "out")]
    assert main(export) == 2
    assert f"{weights} is not what was written" in capsys.readouterr().err
    assert main([*export, "--skip-checksums"]) == 0
    del os.environ["PROXYBYTE_SKIP_CHECKSUMS"]  # not by monkeypatch, which would bring it back at the end


def test_export_finishes_quietly_what_was_killed_at_its_last_rename(inputs, tmp_path, capsys):
    words = inputs.words("export", tmp_path / "out")
    assert main(words) == 0
    assert main(words) == 0  # as after a kill behind the rename: everything is there
    assert main([word if word != "native" else "full" for word in words]) == 2
    assert "exists: choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["prepared/bpe/train/*.arrow", "compressors/bpe/*.json", "prepared/bpe/prepared.json"])
def test_damaged_shared_data_of_an_experiment_is_named(what, inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PROXYBYTE_SKIP_CHECKSUMS", raising=False)
    words = inputs.words("experiment run", tmp_path / "out")
    assert main(words) == 0
    shutil.rmtree(tmp_path / "out" / "cells")
    if "compressors" in what:
        shutil.rmtree(tmp_path / "out" / "shared" / "prepared")
    path = sorted((tmp_path / "out" / "shared").glob(what))[0]
    # A manifest has no sum of its own, for it holds times: what readers compare it with is its counts.
    key = b'"documents": '
    flip(path, path.read_bytes().index(key) + len(key) if path.name == "prepared.json" else None)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert str(path) in said or path.name in said
    assert not list(tmp_path.rglob("result.json"))
