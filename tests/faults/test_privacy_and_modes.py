"""Of every kind of folder that we write: no path, user or host name in what can leave, and modes as the umask says."""

from pathlib import Path

import pytest

from proxybyte.cli import main
from proxybyte.privacy import private_words_in


def test_a_folder_says_nothing_of_the_machine_and_others_may_read_it(command, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "mary.smith")
    for form in ("export", "export full", "export gguf") if command == "export" else (command,):
        out = tmp_path / form
        assert main(inputs.words(form, out)) == 0
        assert private_words_in(out, [str(inputs.folder), str(tmp_path)]) == []
        assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o644}


STAYS = {"config.yaml", "checkpoints/*/state.json"}
"""Of a run: what names its data and its output, and is not made to leave the machine."""


@pytest.fixture(scope="module")
def adapted(inputs, tmp_path_factory) -> Path:
    """A run that trained an adapter of a byteified model."""
    out = tmp_path_factory.mktemp("adapted") / "run"
    base = inputs.folder / "byteified"
    assert main(inputs.words("byteify", base)) == 0
    data = inputs.folder / "byteified-prepared"
    prepare = ["prepare", str(inputs.folder / "corpus"), "--compressor", str(base / "compressor"), "--workers", "1"]
    assert main([*prepare, "--out", str(data)]) == 0
    changes = ["trainable.adapter.kind=lora", "trainable.adapter.rank=2", f"data={data}", f"output={out}"]
    model = ["model.backbone_config=null", f"model.checkpoint={base}", "plan.budget=512"]
    assert main(["train", "--config", str(inputs.folder / "recipe.yaml"), *changes, *model]) == 0
    return out


@pytest.mark.parametrize("kind", ["plain", "adapter"])
def test_of_a_run_only_what_stays_names_a_place(kind, inputs, adapted):
    run = inputs.folder / "run" if kind == "plain" else adapted
    parts = {"model", "checkpoints/step-*/model", "compressor"} | ({"adapter"} if kind == "adapter" else set())
    for pattern in parts:
        folders = sorted(run.glob(pattern))
        assert folders, pattern
        for folder in folders:
            assert private_words_in(folder, [str(inputs.folder), str(run)]) == []
    named = {found.partition(": ")[0] for found in private_words_in(run, [str(inputs.folder), str(run)])}
    assert named == {path.relative_to(run).as_posix() for pattern in STAYS for path in run.glob(pattern)}
    assert named, "the scan sees what stays"
    modes = {path.stat().st_mode & 0o777 for path in run.rglob("*") if path.is_file()}
    assert modes == {0o644}


@pytest.mark.parametrize("kind", ["compressor report", "report", "eval code"])
def test_what_reports_and_evaluations_write_names_no_place(kind, inputs, tmp_path):
    assert main(inputs.words(kind, tmp_path / "out")) == 0
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files
    assert private_words_in(tmp_path / "out", [str(inputs.folder), str(tmp_path)]) == []
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}


def test_the_scan_finds_what_it_looks_for(tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "mary.smith")
    monkeypatch.setattr("socket.gethostname", lambda: "lab-machine-7")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.json").write_text('{"_name_or_path": "/data/mary.smith/base"}')
    (tmp_path / "weights.bin").write_bytes(b"\0\xff lab-machine-7 \0")
    (tmp_path / "clean").write_text("rosemary.smithson")
    assert private_words_in(tmp_path, ["/data"]) == [
        "sub/config.json: /data",
        "sub/config.json: mary.smith",
        "weights.bin: lab-machine-7",
    ]
