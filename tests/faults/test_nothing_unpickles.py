"""A pickle runs what its author likes as it is opened. Here it would make a file: it never does, wherever it lies."""

import ast
import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from proxybyte.cli import main

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("modeling_proxy", "training", "eval", "hub_configs")
UNSAFE_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
NAMES = (
    "pytorch_model.bin", "model.pt", "model.pkl", "optimizer.pt", "optimizer.bin", "scheduler.pt", "training_args.bin",
    "rng_state.pth", "random_states_0.pkl", ".metadata", "__0_0.distcp", "adapter_model.bin", "data.pkl",
    "cache.joblib", "tokenizer.pkl", "compressor.pkl", "vectors.npy", "vectors.npz", "state.pth", "extra_state.pt",
)  # fmt: skip
"""Whatever a library might pick up by its name."""


class Bomb:
    """Opened, it makes the file ``path``."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def plant(folder: Path, canary: Path) -> None:
    """A pickle of every name, in the forms that the libraries give them."""
    plain = pickle.dumps(Bomb(canary))
    for name in NAMES:
        if (folder / name).exists():
            continue
        if name.endswith((".bin", ".pt", ".pth")):
            torch.save({"state": Bomb(canary)}, folder / name)
        elif name.endswith(".npy"):
            np.save(folder / name, np.array([Bomb(canary)], dtype=object), allow_pickle=True)
        elif name.endswith(".npz"):
            np.savez(folder / name, a=np.array([Bomb(canary)], dtype=object))
        else:
            (folder / name).write_bytes(plain)


def said(capsysbinary) -> str:
    """On stderr; stdout may hold bytes that a model wrote."""
    return capsysbinary.readouterr().err.decode()


def test_the_bomb_goes_off_where_it_is_opened(tmp_path):
    canary = tmp_path / "canary"
    plant(tmp_path, canary)
    for path, opened in {
        "data.pkl": lambda path: pickle.loads(path.read_bytes()),
        "model.pt": lambda path: torch.load(path, weights_only=False),
        "vectors.npy": lambda path: np.load(path, allow_pickle=True),
        "vectors.npz": lambda path: np.load(path, allow_pickle=True)["a"],
    }.items():
        canary.unlink(missing_ok=True)
        opened(tmp_path / path)
        assert canary.exists(), path


@pytest.fixture
def planted(inputs, tmp_path) -> tuple[Path, Path]:
    """A copy of all inputs with pickles in every folder, and the file that one would make."""
    here, canary = tmp_path / "inputs", tmp_path / "canary"
    shutil.copytree(inputs.folder, here)
    for folder in [here, *(each for each in here.rglob("*") if each.is_dir())]:
        plant(folder, canary)
    recipe = here / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(inputs.folder), str(here)))
    return here, canary


def test_beside_what_every_command_reads_no_pickle_is_opened(planted, tmp_path, capsysbinary):
    here, canary = planted
    from soak_inputs import COMMANDS, Inputs

    moved = Inputs(here)
    for command in (*COMMANDS, "train", "compressor report"):
        code = main(moved.words(command, tmp_path / command.replace(" ", "-")))
        told = said(capsysbinary)
        assert code in (0, 2) and "Traceback" not in told, (command, code, told[-300:])
        assert not canary.exists(), command
    finished = ["train", "--config", str(here / "recipe.yaml"), "plan.budget=4096"]
    for words in (
        ["generate", str(here / "run"), "--prompt", "a", "--max-new-bytes", "2"],
        ["eval", "bpb", str(here / "run"), "--data", str(here / "corpus"), "--limit", "1"],
        ["info", str(here / "run" / "model")],
        ["inspect", str(here / "prepared")],
        finished,
    ):
        assert main(words) in (0, 2), words
        assert "Traceback" not in said(capsysbinary)
        assert not canary.exists(), words


def test_weights_that_are_a_pickle_are_refused_by_every_command_that_takes_a_model(planted, tmp_path, capsysbinary):
    here, canary = planted
    for path in [*here.rglob("*.safetensors"), *here.rglob("SHA256SUMS")]:
        path.unlink()
    model, base, out = here / "run" / "model", here / "base", tmp_path / "out"
    recipe = ["train", "--config", str(here / "recipe.yaml"), f"output={out}", "model.backbone_config=null"]
    for words in (
        ["export", str(model), "--format", "native", "--out", str(out)],
        ["export", str(model), "--format", "full", "--out", str(out)],
        ["export", str(model), "--format", "gguf", "--out", str(out)],
        ["generate", str(model), "--prompt", "a"],
        ["eval", "bpb", str(model), "--data", str(here / "corpus")],
        ["eval", "code", str(model), "--data", str(here / "problems.jsonl"), "--generate-only", "--output", str(out)],
        ["byteify", str(base), "--out", str(out)],
        ["adapter", "merge", str(model), str(here / "adapter"), "--out", str(out)],
        ["convert", "evabyte", str(here / "eva"), "--back", "--out", str(out)],
        [*recipe, f"model.checkpoint={model}"],
    ):
        assert main(words) == 2, words
        assert "Traceback" not in said(capsysbinary)
        assert not canary.exists(), words


def test_an_adapter_whose_weights_are_a_pickle_is_refused_by_name(planted, tmp_path, capsysbinary):
    here, canary = planted
    (here / "adapter" / "adapter_model.safetensors").unlink()
    words = ["adapter", "merge", str(here / "run" / "model"), str(here / "adapter"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "adapter_model.safetensors" in said(capsysbinary)
    assert not canary.exists()


def test_a_dataset_of_pickles_is_refused(tmp_path, capsysbinary):
    """As tables of pandas, and as the archives that WebDataset reads."""
    canary = tmp_path / "canary"
    pickles, archives = tmp_path / "pickles", tmp_path / "archives"
    pickles.mkdir()
    archives.mkdir()
    plant(pickles, canary)
    with tarfile.open(archives / "train-0000.tar", "w") as file:
        for name, content in {
            "0.txt": b"text",
            "0.pyd": pickle.dumps(Bomb(canary)),
            "0.pickle": pickle.dumps(Bomb(canary)),
            "0.pth": (pickles / "model.pt").read_bytes(),
            "0.npy": (pickles / "vectors.npy").read_bytes(),
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    for folder in (pickles, archives):
        words = ["corpus", "--dataset", str(folder), "--out", str(tmp_path / "out"), "--text-column", "txt"]
        assert main(words) == 2, folder
        assert "Traceback" not in said(capsysbinary)
        assert not canary.exists(), folder


def test_an_archive_is_not_unpacked_whatever_its_names_say(tmp_path, capsysbinary):
    victim = tmp_path / "victim.py"
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(source / "a.zip", "w") as file:
        file.writestr("../victim.py", "planted")
    with tarfile.open(source / "b.tar.gz", "w:gz") as file:
        for name in ("../victim.py", str(victim)):
            entry = tarfile.TarInfo(name)
            entry.size = 7
            file.addfile(entry, io.BytesIO(b"planted"))
    (source / "c.py").write_text("x = 1\n")
    assert main(["corpus", str(source), "--out", str(tmp_path / "out"), "--validation-share", "0"]) == 0
    assert not victim.exists()
    for name in ("a.zip", "b.tar.gz"):
        assert main(["corpus", str(source / name), "--out", str(tmp_path / "other")]) == 2
        assert name in said(capsysbinary)
    assert not victim.exists()


def test_no_code_of_ours_opens_a_pickle_or_lets_a_library_do_so():
    """Read from the source: no module that unpickles, no loader of weights without its guard."""
    wrong = []
    for path in [each for room in ROOMS for each in (ROOT / room).rglob("*.py") if each.parent.name != "templates"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                wrong += [f"{where} imports {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called = ast.unparse(node.func)
            if called in ("torch.load", "np.load", "numpy.load", "pandas.read_pickle"):
                wrong.append(f"{where} calls {called}")
            if node.func.attr == "from_pretrained" and not called.startswith(("GenerationConfig", "ProxyByteConfig")):
                given = {each.arg or ast.unparse(each.value) for each in node.keywords}
                guarded = given & {"SAFELY", "NO_CODE", "NO_CODE | where", "trust_remote_code"}
                if not guarded and not called.startswith("PeftModel"):  # whose folder check_adapter has looked at
                    wrong.append(f"{where} calls {called} without SAFELY or NO_CODE")
    assert not wrong, "\n".join(wrong)
