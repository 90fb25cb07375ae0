"""``proxybyte inspect``: every kind of folder, and a name on the Hub."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from proxybyte.cli import main
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.hub_configs.inspecting import ArtefactKind, Sum, inspect_artefact


@pytest.fixture(scope="module")
def made(model_writer, tmp_path_factory) -> Path:
    """A folder with one of each kind, made by the commands where they are quick."""
    home = tmp_path_factory.mktemp("kinds")
    (home / "texts").mkdir()
    for number in range(20):
        (home / "texts" / f"{number}.py").write_text(f"def name_{number}(first):\n    return first + {number}\n" * 4)
    words = ["corpus", home / "texts", "--by-document", "--validation-share", "0.3", "--license", "mit"]
    assert main([*map(str, words), "--out", str(home / "corpus")]) == 0
    fit = ["compressor", "fit", "bpe", "--corpus", home / "corpus", "--symbols", "270", "--out", home / "bpe"]
    assert main([*map(str, fit)]) == 0
    prepare = ["prepare", home / "corpus", "--compressor", home / "bpe", "--workers", "1", "--out", home / "prepared"]
    assert main([*map(str, prepare)]) == 0
    model_writer(home / "run" / "model", "llama", num_raw_pred_heads=2)
    shutil.copytree(home / "bpe", home / "run" / "compressor")
    shutil.copytree(home / "run" / "model", home / "run" / "checkpoints" / "step-00000004" / "model")
    for form in ExportFormat:
        export_model(home / "run", home / f"export-{form}", ExportOptions(form))
    shutil.copytree(home / "run" / "model", home / "byteified")
    (home / "byteified" / "byteify.json").write_text('{"base": "some/base", "rows": "token"}')
    (home / "adapter").mkdir()
    (home / "adapter" / "adapter_config.json").write_text('{"r": 4, "base_model_name_or_path": "model"}')
    return home


KINDS = {
    "corpus": ArtefactKind.CORPUS,
    "bpe": ArtefactKind.COMPRESSOR,
    "prepared": ArtefactKind.PREPARED,
    "run": ArtefactKind.RUN,
    "run/checkpoints/step-00000004": ArtefactKind.CHECKPOINT,
    "run/model": ArtefactKind.MODEL,
    "export-native": ArtefactKind.EXPORT,
    "export-full": ArtefactKind.EXPORT,
    "export-gguf": ArtefactKind.EXPORT,
    "byteified": ArtefactKind.BYTEIFIED,
    "adapter": ArtefactKind.ADAPTER,
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_known_and_every_file_is_hashed(name, made, capsys):
    assert main(["inspect", str(made / name), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == KINDS[name]
    files = {p.relative_to(made / name).as_posix(): p for p in (made / name).rglob("*") if p.is_file()}
    files.pop("SHA256SUMS", None)
    assert {each: facts["bytes"] for each, facts in told["files"].items()} == {
        each: path.stat().st_size for each, path in files.items()
    }
    for each, path in files.items():
        assert told["files"][each]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert main(["inspect", str(made / name)]) == 0
    text = capsys.readouterr().out
    assert KINDS[name] in text.splitlines()[0]
    assert all(each in text for each in files)


def test_it_says_symbols_heads_weights_compressor_and_export(made):
    facts = inspect_artefact(str(made / "export-full")).facts
    assert facts["model"]["symbols"] == "370"
    assert facts["model"]["compressed"] == "320 to 369"
    assert facts["heads"]["over bytes, after those"] == 2
    assert facts["compressor"]["family"] == "bpe"
    assert facts["export"]["form"] == "full"
    from safetensors.torch import load_file

    stored = load_file(made / "export-full" / "model.safetensors")
    assert facts["weights"]["tensors"] == len(stored)
    assert facts["weights"]["numbers"] == sum(map(torch.numel, stored.values()))
    assert inspect_artefact(str(made / "export-native")).facts["heads"]["beside it, for drafts"] == 2
    assert inspect_artefact(str(made / "byteified")).facts["byteified from"]["base"] == "some/base"
    assert inspect_artefact(str(made / "corpus")).facts["corpus"]["data"]["licenses"] == ["mit"]
    assert inspect_artefact(str(made / "prepared")).facts["prepared data"]["data"]["licenses"] == ["mit"]


def test_a_changed_file_is_seen(made, tmp_path):
    copy = Path(shutil.copytree(made / "export-native", tmp_path / "copy"))
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    (copy / "mine.txt").write_text("mine")
    states = {name: file.sum for name, file in inspect_artefact(str(copy)).files.items()}
    assert states["config.json"] is Sum.CHANGED
    assert states["mine.txt"] is Sum.UNKNOWN
    assert states["model.safetensors"] is Sum.SAME


def test_a_name_on_the_hub(hub, made):
    import subprocess
    import sys

    done = hub.push(made / "export-full", "me/model", "--license", "mit")
    assert done.returncode == 0, done.stderr
    words = "import sys; from proxybyte.cli import main; sys.exit(main(['inspect', 'me/model', '--json']))"
    seen = subprocess.run(
        [sys.executable, "-c", words], env=hub.environment(), cwd=hub.home, capture_output=True, text=True, check=False
    )
    assert seen.returncode == 0, seen.stderr
    told = json.loads(seen.stdout)
    assert told["kind"] == "export"
    weights = hashlib.sha256((made / "export-full" / "model.safetensors").read_bytes()).hexdigest()
    assert told["files"]["model.safetensors"]["sha256"] == weights
    assert told["compressor"]["family"] == "bpe"


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_file_is_named(content, tmp_path, capsys):
    (tmp_path / "corpus.json").write_text(content)
    assert main(["inspect", str(tmp_path)]) == 2
    assert "corpus.json cannot be read" in capsys.readouterr().err


def test_what_is_nothing_of_ours_is_refused(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "holds no model" in capsys.readouterr().err
