"""Any folder that a person would name is a model to every command: a run, its model/, an export, a name on the Hub."""

import json
import shutil

import pytest
import torch

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, build_tokenizer, save_tokenizer
from proxybyte.artefacts import find_compressor, find_model, is_hub_name
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.training import load_compressor
from proxybyte.training.run.config import ModelConfig

SHAPES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
LLAMA = {"model_type": "llama", "num_key_value_heads": 1, "max_position_embeddings": 512, **SHAPES}
CODES = 256
PLACES = (
    "run",
    "run/model",
    "run/checkpoints/step-00000002",
    "run/checkpoints/step-00000002/model",
    "full",
    "native",
    "owner/model",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run with a compressor, its exports, and the full one as it lies in Hugging Face's cache."""
    home = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    model = ProxyByteForCausalLM(ProxyByteConfig(backbone_config=LLAMA, num_compressed_symbols=CODES))
    for folder in (home / "run" / "model", home / "run" / "checkpoints" / "step-00000002" / "model"):
        model.save_pretrained(folder)
        save_tokenizer(build_tokenizer(), folder)
    load_compressor("bits-8").save(home / "run" / "compressor")
    for kind in ("full", "native"):
        assert main(["export", str(home / "run"), "--format", kind, "--out", str(home / kind)]) == 0
    stored = home / "hub" / "models--owner--model"
    shutil.copytree(home / "full", stored / "snapshots" / "0123456789")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0123456789")
    (home / "text.txt").write_text("def f(x):\n    return x + 1\n" * 3)
    return home


@pytest.fixture
def at_home(home, monkeypatch):
    """Paths are relative to ``home``, and the Hub is what its cache holds."""
    monkeypatch.chdir(home)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return home


@pytest.mark.parametrize("place", PLACES)
def test_model_and_compressor_are_found(at_home, place):
    found = find_model(place)
    assert (found.model / "config.json").is_file()
    assert (found.compressor is None) == (place == "native")
    if found.compressor is not None:
        assert json.loads((found.compressor / "compressor.json").read_bytes())["family"] == "bits"
    assert ModelConfig(checkpoint=place).base == found


@pytest.mark.parametrize("place", PLACES)
def test_every_command_takes_it(at_home, place, tmp_path, capsysbinary):
    def printed(*words):
        assert main([str(word) for word in words]) == 0, capsysbinary.readouterr().err
        return capsysbinary.readouterr().out.decode("latin-1")

    assert "1 x 32" in printed("info", place)
    bits = [
        json.loads(printed("eval", "bpb", one, "--data", "text.txt", "--no-baselines", "--json", "--device", "cpu"))[
            f"{one} (raw)"
        ]["bits_per_byte"]
        for one in (place, "run")
    ]
    assert bits[0] == pytest.approx(bits[1], rel=1e-4)
    written = printed("generate", place, "--prompt", "def", "--max-new-bytes", "4", "--device", "cpu")
    want = printed("generate", "run", "--prompt", "def", "--max-new-bytes", "4", "--device", "cpu")
    assert written == want
    if place == "native":
        return
    figures = json.loads(
        printed("eval", "transfer", place, "--data", "text.txt", "--translate-bytes", 8, "--json", "--device", "cpu")
    )
    assert figures["views"]["compressed"]["documents"] == 1
    printed("export", place, "--format", "full", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "compressor" / "compressor.json").is_file()


def test_a_native_export_has_no_second_view_and_nothing_to_export(at_home, tmp_path, capsys):
    assert main(["eval", "transfer", "native", "--data", "text.txt"]) == 2
    assert "it has no rows for compressed symbols" in capsys.readouterr().err
    assert main(["export", "native", "--format", "full", "--out", str(tmp_path / "out")]) == 2


@pytest.mark.parametrize("place", ["run", "run/model", "full"])
def test_a_compressor_is_taken_from_a_model_that_carries_it(at_home, place):
    assert load_compressor(place).num_symbols == CODES


def test_a_neighbour_is_no_compressor_of_ours(home):
    assert find_compressor(home / "run" / "elsewhere") is None


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("absent", "absent is no folder: give a run"),
        ("run/absent", "run/absent is no folder: give a run"),
        ("hub", "hub holds no model: it has no config.json"),
        ("nobody/nothing", "nobody/nothing is no folder here, and cannot be had from the Hub: "),
    ],
)
def test_what_is_no_model_is_one_sentence(at_home, named, sentence):
    with pytest.raises(ProxyByteError) as error:
        find_model(named)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "named", ["owner", "./owner/model", "/owner/model", "a/b/c", "run/model", "run/absent", "../a"]
)
def test_paths_are_never_looked_for_on_the_hub(at_home, named):
    assert not is_hub_name(named)
