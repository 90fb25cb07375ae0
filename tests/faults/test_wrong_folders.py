"""Folders that are not what a command takes, and faults that nobody foresaw: one sentence, and nothing is written."""

import shutil
import sys
from pathlib import Path

import pytest

from proxybyte.cli import main
from proxybyte.training.train import main as train_main

DEEP = b"[" * 20_000
KINDS = ["absent", "empty", "list", "deep"]
MORE_KINDS = ["file", "text", "broken", "not utf-8"]


def wrong(kind: str, folder: Path) -> Path:
    """Something that is no model, corpus, compressor, adapter, run or prepared data."""
    place = folder / "given"
    if kind == "absent":
        return place
    if kind == "file":
        place.write_text("text")
        return place
    place.mkdir()
    content = {"broken": b'{"a": ', "list": b"[]", "deep": DEEP, "not utf-8": b"\xff\xfe", "text": b"text"}
    names = ["config.json", "compressor.json", "corpus.json", "prepared.json", "adapter_config.json", "byteify.json"]
    for name in ["notes.txt"] if kind == "text" else names if kind != "empty" else []:
        (place / name).write_bytes(content[kind])
    return place


def commands(inputs, given: Path, out: Path) -> dict[str, list]:
    here = inputs.folder
    return {
        "adapter merge, base": ["adapter", "merge", given, here / "adapter", "--out", out],
        "adapter merge, adapter": ["adapter", "merge", here / "run" / "model", given, "--out", out],
        "byteify": ["byteify", given, "--out", out],
        "compressor compile": ["compressor", "compile", given, "--out", out],
        "compressor fit": ["compressor", "fit", "token-bytes", "--tokenizer", given, "--out", out],
        "compressor report": ["compressor", "report", given, "--corpus", here / "corpus", "--out", out],
        "convert": ["convert", "evabyte", given, "--out", out],
        "convert back": ["convert", "evabyte", given, "--back", "--out", out],
        "eval bpb": ["eval", "bpb", given, "--data", here / "corpus"],
        "eval code": ["eval", "code", given, "--generate-only", "--output", out],
        "eval transfer": ["eval", "transfer", given, "--data", here / "corpus"],
        "experiment report": ["experiment", "report", given, "--out", out],
        "experiment run": ["experiment", "run", given, "--out", out],
        "export": ["export", given, "--format", "full", "--out", out],
        "generate": ["generate", given, "--prompt", "a"],
        "info": ["info", given],
        "prepare, corpus": ["prepare", given, "--compressor", here / "bpe", "--out", out],
        "prepare, compressor": ["prepare", here / "corpus", "--compressor", given, "--out", out],
        "report": ["report", given],
        "train, data": ["train", "--config", here / "recipe.yaml", f"data={given}", f"output={out}"],
        "train, recipe": ["train", "--config", given],
        "train, checkpoint": [
            *("train", "--config", here / "recipe.yaml", f"output={out}"),
            *("model.backbone_config=null", f"model.checkpoint={given}"),
        ],
    }


@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE_KINDS)])
def test_a_folder_that_is_something_else_is_one_sentence_that_names_it(kind, inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = wrong(kind, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    faults = []
    for name, words in commands(inputs, given, tmp_path / "out").items():
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        sentences = [line for line in err.splitlines() if line.startswith("proxybyte: ")]
        if code != 2 or "Traceback" in out + err or len(sentences) != 1 or str(given) not in sentences[0]:
            faults.append((name, code, sentences, err[-300:] if not sentences else ""))
        if sorted(tmp_path.rglob("*")) != before:
            faults.append((name, "left", [path for path in tmp_path.rglob("*") if path not in before]))
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert not faults, "\n".join(map(str, faults))


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("entry", ["proxybyte train", "proxybyte.training.train"])
def test_what_nobody_foresaw_is_one_sentence_and_exit_code_70(entry, debug, inputs, tmp_path, capsys, monkeypatch):
    """An installation whose Matplotlib is broken: the picture at the end of a run cannot be drawn."""
    monkeypatch.delitem(sys.modules, "proxybyte.training.run.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = ["--config", str(inputs.folder / "recipe.yaml"), f"output={tmp_path / 'run'}", "log.plot=true"]
    words += ["--debug"] if debug else []
    assert (main(["train", *words]) if entry == "proxybyte train" else train_main(words)) == 70
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("proxybyte: unexpected ModuleNotFoundError: ")
    assert "--debug" in said.splitlines()[-1]
    assert ("Traceback" in said) == debug
    assert ("plots.py" in said) == debug


@pytest.mark.parametrize("content", [b'{"a": ', b"[]", b"\xff\xfe", DEEP], ids=["cut", "list", "not utf-8", "deep"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_damaged_file_of_an_export_is_named(name, content, exported, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    (folder / name).write_bytes(content)
    capsys.readouterr()
    assert main(["generate", str(folder), "--prompt", "a", "--max-new-bytes", "1"]) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("proxybyte: ")
    assert str(folder) in sentence
    assert name in sentence


def test_a_converted_folder_without_a_tokenizer_says_so(inputs, capsys):
    assert main(["generate", str(inputs.folder / "eva"), "--prompt", "a", "--max-new-bytes", "1"]) == 2
    assert f"{inputs.folder / 'eva'} holds no tokenizer.json" in capsys.readouterr().err


@pytest.fixture(scope="module")
def exported(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    assert main(inputs.words("export", out)) == 0
    return out
