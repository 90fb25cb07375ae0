"""``train --dry-run`` against figures worked out by hand, and against what the run then does."""

import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
import yaml

from proxybyte import ProxyByteConfig
from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs import load_preset, preset_names
from proxybyte.training.compressors.bpe_train import train_bpe
from proxybyte.training.run.assemble import open_data
from proxybyte.training.run.config import Precision
from proxybyte.training.run.config_io import load_config, resolve
from proxybyte.training.run.dry_run import MemoryUse, dry_run
from proxybyte.training.train import main

# The fixture's Llama: 2 blocks of width 32, two key/value heads of 8, an MLP of 64, a final norm; 600 tied rows.
BLOCK = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
INNER = 2 * (BLOCK + 2 * 32) + 32
ROWS = 600 * 32


OPTIONAL = {
    "trackio": "log.trackers=[trackio]",
    "wandb": "log.trackers=[tensorboard, wandb]",
    "bitsandbytes": "optimizer.kind=adamw_8bit",
}
ABSENT = [override for package, override in OPTIONAL.items() if find_spec(package) is None]


def said(recipe, *overrides, timed=False, **changes) -> str:
    return dry_run(resolve(recipe(**changes), list(overrides)), timed)


def line(text: str, name: str) -> str:
    (found,) = [one for one in text.splitlines() if re.match(rf"{name} {{2,}}", one)]
    return found


def test_model_steps_and_schedule_are_those_worked_out_by_hand(recipe):
    text = said(recipe)
    assert f"{INNER + ROWS:,} parameters, {INNER:,} beside embedding and heads" in line(text, "model")
    assert "8 of 4 rows of 64 symbols: 2,048 symbols" in line(text, "steps")
    assert f"{2048 / INNER:.3g} for each weight" in line(text, "steps")
    assert line(text, "learning rate").endswith("rises over 2 steps to 0.001, falls to 0.0001 at step 8 (cosine)")
    assert "float32 (as asked)" in line(text, "precision")
    assert "cpu, 1 process" in line(text, "device")
    assert "3 times" in line(text, "evaluation") and "4 documents in raw view" in line(text, "evaluation")


def test_flops_are_those_of_the_documents_as_they_are_packed(recipe):
    config = load_config(recipe())
    dataset = open_data(config).dataset
    batch = dataset.batch(range(len(dataset)))
    keys = (round(2 * batch.position_ids[batch.input_ids != 0].mean() + 1) + 1) / 2
    symbol = 3 * (2 * (2 * BLOCK + ROWS) + 2 * 4 * 32 * keys)
    assert f"{2048 * symbol:.3g} FLOPs, {256 * symbol:.3g} a step, {symbol:.3g} a symbol" in said(recipe)


def test_what_is_said_comes_true(recipe, tmp_path):
    text = said(recipe)
    assert main(["--config", str(recipe())]) == 0
    lines = [json.loads(one) for one in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [one for one in lines if one["kind"] == "train"]
    assert len(trained) == int(re.search(r"steps +(\d+) of", text)[1])
    assert f"{trained[-1]['flops']:.3g} FLOPs" in text
    assert len(lines) - len(trained) == 3
    assert f"{trained[-1]['learning_rate']:.3g} at step 8" in text
    assert "finished: step 8 of 8" in line(said(recipe), "run")


def test_state_of_the_optimizer_is_sixteen_bytes_a_weight_and_shards_share_it(recipe):
    config = load_config(recipe())
    shape = ProxyByteConfig(backbone_config=dict(config.model.backbone_config), num_compressed_symbols=280)
    alone = MemoryUse.of(config, shape, Precision.FLOAT32, (1000, 10), 1)
    assert alone.state == 16 * 1000 + 4 * 10
    assert MemoryUse.of(config, shape, Precision.FLOAT32, (1000, 10), 4).state == alone.state / 4
    # 2 rows of 64; a block keeps 7 x 32 + 2 x 16 + 4 x 64 numbers a symbol; logits of all 128, and their gradient.
    assert alone.pass_through == 128 * 2 * (7 * 32 + 2 * 16 + 4 * 64) * 4 + 2 * 4 * 128 * 600


def test_time_takes_steps_and_leaves_nothing(recipe, tmp_path):
    text = said(recipe, timed=True)
    seconds, step = map(float, re.search(r"about (\d+) s: 8 steps of ([\d.]+) s", text).groups())
    assert 0 < step < 60 and abs(seconds - 8 * step) <= 1
    assert not (tmp_path / "run").exists()
    assert "not measured" in said(recipe)


def test_time_without_a_dry_run_is_refused(recipe, capsys):
    assert main(["--config", str(recipe()), "--time"]) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_each_value_is_shown_with_where_it_came_from(recipe):
    model = {"preset": "tiny-llama"}
    text = said(recipe, "optimizer.clip=0.5", model=model, optimizer={"lr": 0.004})
    for key, value, origin in [
        ("optimizer.lr", "0.004", "recipe"),
        ("optimizer.clip", "0.5", "command line"),
        ("optimizer.weight_decay", "0.1", "preset"),
        ("optimizer.eps", "1e-08", "default"),
        ("learning_rate.warmup", "0.25", "recipe"),
        ("learning_rate.final", "0.1", "preset"),
        ("model.preset", '"tiny-llama"', "recipe"),
    ]:
        assert re.search(rf"^  {re.escape(key)} +{re.escape(value)} +{origin}$", text, re.MULTILINE), key


@pytest.mark.parametrize("name", preset_names())
def test_a_presets_training_values_are_what_a_run_of_it_uses(name, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"output: run\ndata: prepared\nmodel: {{preset: {name}}}\n")
    config, training = load_config(path), load_preset(name).training
    assert config.optimizer.lr == training["optimizer"]["lr"]
    assert config.optimizer.betas == tuple(training["optimizer"]["betas"])
    assert config.learning_rate.warmup == training["learning_rate"]["warmup"]
    assert load_config(path, ["optimizer.lr=0.5"]).optimizer.lr == 0.5
    path.write_text(f"output: run\ndata: prepared\nmodel: {{preset: {name}}}\noptimizer: {{lr: 0.25}}\n")
    assert load_config(path).optimizer.lr == 0.25


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model={preset: tiny-lama}"], "did you mean 'tiny-llama'"),
        (["model={checkpoint: nowhere}"], "no folder"),
        (["model.attention=flex_attention"], "on a CPU it has no backward"),
        (["compute.processes=3"], "must be a multiple"),
        (["data=nowhere"], "nowhere"),
        (["model.backbone_config.num_key_value_heads=3"], "no multiple"),
        (["plan.budget=64"], "less than one step"),
    ],
)
def test_what_would_stop_the_run_stops_the_dry_run(recipe, capsys, overrides, words):
    assert main(["--config", str(recipe()), "--dry-run", "compute.device=cpu", *overrides]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.skipif(not ABSENT, reason="every optional package is installed")
@pytest.mark.parametrize("override", ABSENT)
def test_a_package_that_is_not_installed_stops_the_dry_run(recipe, capsys, override):
    assert main(["--config", str(recipe()), "--dry-run", override]) == 2
    assert "pip install" in capsys.readouterr().err


def test_a_changed_recipe_over_an_earlier_run_is_refused_as_the_run_refuses_it(recipe):
    assert main(["--config", str(recipe())]) == 0
    with pytest.raises(ProxyByteError, match=r"optimizer\.lr=0\.001 \(now 0\.5\)"):
        said(recipe, "optimizer.lr=0.5")


def warnings(text: str) -> list[str]:
    return [one.removeprefix("warning: ") for one in text.splitlines() if one.startswith("warning: ")]


def test_a_plan_without_faults_warns_of_nothing(recipe):
    plan = {"row_length": 64, "budget": 32768, "budget_unit": "symbols"}
    assert warnings(said(recipe, plan=plan)) == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "2,048 symbols are fewer than one"),
        (["evaluation.every=100"], "evaluation never falls due between start and end: evaluation.every is 100"),
        (["evaluation.every=0"], "evaluation.every is 0"),
        (["checkpoint.every=9"], "no checkpoint is written before the end"),
    ],
)
def test_a_plan_that_will_disappoint_is_said(recipe, overrides, words):
    assert any(words in sentence for sentence in warnings(said(recipe, *overrides)))


def test_a_document_that_fills_a_phase_is_said(recipe, tmp_path, write_split):
    folder = tmp_path / "uncut"
    rng = np.random.default_rng(0)
    long = [rng.integers(97, 123, 40_000).astype(np.uint8).tobytes(), *[b"short and plain " * 4] * 40]
    compressor = train_bpe(long, 280)
    compressor.save(folder / "compressor")
    write_split(folder / "train", long, compressor)
    plan = {"row_length": 64, "budget": 2048, "budget_unit": "symbols", "seed": 0}
    filled = [
        warning
        for seed in range(20)
        for warning in warnings(said(recipe, f"plan.seed={seed}", data=str(folder), plan=plan))
        if "one document fills" in warning
    ]
    assert any("of the steady phase" in warning for warning in filled) and "--cut-bytes" in filled[0]
    assert any("no validation split" in warning for warning in warnings(said(recipe, data=str(folder), plan=plan)))


def test_printed_config_runs_as_it_is(recipe, tmp_path, capsys):
    overrides = ["optimizer.lr=0.004", "plan.budget=1024", f"output={tmp_path / 'first'}"]
    assert main(["--config", str(recipe()), "--print-config", *overrides]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert not (tmp_path / "first").exists()
    assert load_config(printed) == load_config(recipe(), overrides)
    assert yaml.safe_load(printed.read_text())["optimizer"]["lr"] == 0.004
    assert main(["--config", str(printed)]) == 0
    assert (tmp_path / "first" / "model" / "config.json").is_file()
    assert main(["--config", str(recipe()), "--print-config", "model={preset: tiny-lama}"]) == 2
