"""Adapters, stages and the teacher on a byteified model, through the training loop."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from proxybyte import ProxyByteForCausalLM
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import COMPRESSED_OFFSET, NUM_RAW_SYMBOLS
from proxybyte.training.byteify import byteify
from proxybyte.training.compressors import load_compressor
from proxybyte.training.run.adapters import merge_adapter
from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train

peft = pytest.importorskip("peft")
SYMBOLS = torch.randint(64, 320, (2, 12), generator=torch.Generator().manual_seed(2))
STEPS = 8


@pytest.fixture(scope="module", params=["llama", "llama-tied"])
def base_and_model(make_base, tmp_path_factory, request) -> tuple[Path, Path]:
    """A base and its byteified folder, in float32."""
    base, out = make_base(request.param, dtype=torch.float32), tmp_path_factory.mktemp("byteified") / "model"
    byteify(str(base), out)
    return base, out


@pytest.fixture
def run(base_and_model, prepare_texts, tmp_path):
    """Trains the byteified model for eight steps and returns the run folder."""
    _, model = base_and_model

    def start(*overrides: str, output: str = "run") -> Path:
        values = {
            "output": str(tmp_path / output),
            "data": str(prepare_texts(model)),
            "precision": "float32",
            "model": {"checkpoint": str(model)},
            "plan": {"row_length": 64, "budget": 64 * 4 * STEPS, "budget_unit": "symbols", "schedule": {"rate": 0.5}},
            "batch": {"rows_per_step": 4, "rows_per_device": 2},
            "optimizer": {"lr": 1e-2},
            "log": {"every": 1, "trackers": [], "plot": False},
            "checkpoint": {"every": 4},
            "evaluation": {"every": 0},
        }
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(values))
        config = load_config(recipe, overrides)
        train(config)
        return config.output

    return start


def losses(folder: Path) -> list[tuple[float, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines]


def adapter_of(*settings: str) -> list[str]:
    return ["trainable.adapter.kind=lora", *(f"trainable.adapter.{setting}" for setting in settings)]


@pytest.mark.parametrize(("kind", "rows"), [("lora", "all"), ("lora", "raw"), ("lora", "none"), ("dora", "all")])
def test_the_merged_model_is_the_adapter_on_the_base(run, base_and_model, kind, rows):
    folder = run(*adapter_of(f"rows={rows}"), f"trainable.adapter.kind={kind}")
    start = ProxyByteForCausalLM.from_pretrained(base_and_model[1])
    before = start(SYMBOLS).logits
    wrapped = peft.PeftModel.from_pretrained(start, folder / "adapter").eval()
    merged = ProxyByteForCausalLM.from_pretrained(folder / "model")
    with torch.no_grad():
        expected = wrapped(SYMBOLS).logits
        torch.testing.assert_close(merged(SYMBOLS).logits, expected, rtol=0, atol=2e-4)
        assert (expected - before).abs().max() > 1e-2
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) is bool(merged.config.tie_word_embeddings)


def test_raw_rows_alone_leave_every_other_row_as_it_was(run, base_and_model):
    folder = run(*adapter_of("rows=raw"))
    before, after = (
        ProxyByteForCausalLM.from_pretrained(path).state_dict() for path in (base_and_model[1], folder / "model")
    )
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(before[name][NUM_RAW_SYMBOLS:], after[name][NUM_RAW_SYMBOLS:])
        assert not torch.equal(before[name][:NUM_RAW_SYMBOLS], after[name][:NUM_RAW_SYMBOLS])
    assert (folder / "adapter" / "adapter_model.safetensors").stat().st_size < 200_000


@pytest.mark.parametrize("rows", ["all", "raw"])
def test_a_resumed_adapter_run_is_the_uninterrupted_one(run, rows):
    whole = run(*adapter_of(f"rows={rows}", "dropout=0.1"), output="whole")
    cut = run(*adapter_of(f"rows={rows}", "dropout=0.1"), output="cut")
    shutil.rmtree(cut / "checkpoints" / f"step-{STEPS:08d}")
    shutil.rmtree(cut / "model")
    run(*adapter_of(f"rows={rows}", "dropout=0.1"), output="cut")
    assert losses(cut) == losses(whole)
    for file in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
        one, other = load_file(whole / file), load_file(cut / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("rows", ["all", "raw"])
def test_weights_under_an_adapter_may_be_in_bfloat16(run, rows):
    narrow = run(*adapter_of(f"rows={rows}", "frozen=bfloat16"), "precision=bfloat16", output="narrow")
    wide = run(*adapter_of(f"rows={rows}"), "precision=bfloat16", output="wide")
    assert losses(narrow)[-1][0] == pytest.approx(losses(wide)[-1][0], rel=0.05)
    for folder in (narrow, wide):
        saved = load_file(folder / "adapter" / "adapter_model.safetensors")
        assert {weight.dtype for weight in saved.values()} == {torch.float32}
    with pytest.raises(ProxyByteError, match="set precision=bfloat16"):
        run(*adapter_of("frozen=bfloat16"), output="odd")


def test_embeddings_first_moves_nothing_else_and_then_everything(run, base_and_model):
    start = ProxyByteForCausalLM.from_pretrained(base_and_model[1]).state_dict()
    folder = run("trainable.embeddings_only=0.5", "checkpoint.keep=9")
    half, whole = (
        load_file(folder / "checkpoints" / f"step-{step:08d}" / "model" / "model.safetensors") for step in (4, STEPS)
    )
    for name, weight in half.items():
        held = name not in ("model.embed_tokens.weight", "lm_head.weight")
        assert torch.equal(weight, start[name]) is held, name
        assert not torch.equal(whole[name], start[name]), name


@pytest.mark.parametrize(("first", "last", "held"), [(1, 0, {"1"}), (0, 1, {"0"}), (1, 1, set()), (5, 0, set())])
def test_outermost_layers_may_move_with_the_embeddings(run, base_and_model, first, last, held):
    start = ProxyByteForCausalLM.from_pretrained(base_and_model[1]).state_dict()
    asked = [f"trainable.first_layers={first}", f"trainable.last_layers={last}"]
    folder = run("trainable.embeddings_only=0.5", "checkpoint.keep=9", *asked)
    half = load_file(folder / "checkpoints" / "step-00000004" / "model" / "model.safetensors")
    for name, weight in half.items():
        layer = name.split(".")[2] if name.startswith("model.layers.") else None
        assert torch.equal(weight, start[name]) is (layer in held or name == "model.norm.weight"), name


def test_a_run_resumed_while_embeddings_move_alone_is_the_uninterrupted_one(run):
    settings = ["trainable.embeddings_only=0.5", "checkpoint.every=2", "checkpoint.keep=9"]
    whole = run(*settings, output="whole")
    cut = run(*settings, output="cut")
    for step in (4, 6, 8):
        shutil.rmtree(cut / "checkpoints" / f"step-{step:08d}")
    run(*settings, output="cut")
    assert losses(cut) == losses(whole)


def test_an_adapter_trained_on_the_base_applies_to_the_byteified_model(base_and_model, tmp_path):
    base, folder = base_and_model
    torch.manual_seed(1)
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64), settings)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.1)
    theirs.save_pretrained(tmp_path / "adapter")
    plain = ProxyByteForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokens = torch.randint(5, 300, (1, 16), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        unchanged = plain(tokens + COMPRESSED_OFFSET).logits[..., COMPRESSED_OFFSET:]
        ours = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
        got = ours(tokens + COMPRESSED_OFFSET).logits[..., COMPRESSED_OFFSET:]
        expected = theirs.eval()(tokens).logits
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)  # adapters are float32
    assert (unchanged - expected).abs().max() > 1e-2


def test_an_adapter_without_a_checkpoint_or_with_an_odd_target_is_refused(run, tmp_path):
    with pytest.raises(ProxyByteError, match=r"trainable\.adapter needs model\.checkpoint"):
        run("trainable.adapter.kind=lora", "model.checkpoint=null", "model.preset=tiny-llama")
    with pytest.raises(ProxyByteError, match=r"targets=\('no_such_proj',\) does not fit"):
        run("trainable.adapter.kind=lora", "trainable.adapter.targets=[no_such_proj]")


def test_the_command_merges_as_the_run_did(run, base_and_model, tmp_path):
    folder, out = run(*adapter_of("rows=raw")), tmp_path / "merged"
    assert main(["adapter", "merge", str(base_and_model[1]), str(folder / "adapter"), "--out", str(out)]) == 0
    one, other = load_file(folder / "model" / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_compressor(out).num_symbols == load_compressor(base_and_model[1]).num_symbols


def test_merging_what_does_not_fit_is_one_sentence(base_and_model, tmp_path):
    with pytest.raises(ProxyByteError, match=r"adapter_config\.json does not exist"):
        merge_adapter(base_and_model[1], tmp_path)


def test_a_teacher_changes_what_is_learnt_and_nothing_else(run):
    plain = run(output="plain")
    taught = run("teacher.weight=1", output="taught")
    assert losses(taught)[0][0] == pytest.approx(losses(plain)[0][0], rel=1e-6)
    assert losses(taught)[0][1] != pytest.approx(losses(plain)[0][1], rel=1e-3)


def test_a_new_tokenizer_folder_is_no_teacher(run, tmp_path):
    with pytest.raises(ProxyByteError, match="holds no model"):
        run("teacher.weight=1", f"teacher.model={tmp_path}")
