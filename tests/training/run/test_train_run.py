"""Whole runs in this process: what they compute, what they write, and what stops them."""

import json
import math
import shlex
import shutil
from importlib.util import find_spec

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from proxybyte import ProxyByteForCausalLM
from proxybyte.cli import build_parser, load_commands
from proxybyte.errors import ProxyByteError
from proxybyte.eval import Scoring, bits_per_byte
from proxybyte.training.compressors import load_compressor
from proxybyte.training.run.assemble import model_source, open_data
from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import main, train

STEPS = 8
NUM_CODES = 280


def run(recipe, tmp_path, *overrides, output="run", **changes):
    config = load_config(recipe(**changes), [f"output={tmp_path / output}", *overrides])
    assert train(config).finished
    return config.output


@pytest.fixture
def finished(recipe, tmp_path):
    return run(recipe, tmp_path)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_model_compressor_config_metrics_and_checkpoints(finished, prepared):
    model = ProxyByteForCausalLM.from_pretrained(finished / "model")
    assert model.get_input_embeddings().num_embeddings == 320 + NUM_CODES
    for file in (prepared / "compressor").iterdir():
        if file.name == "SHA256SUMS":  # says which kind of output it stands in
            continue
        assert (finished / "compressor" / file.name).read_bytes() == file.read_bytes()
    assert [line["step"] for line in lines(finished) if line["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines(finished) if line["kind"] == "evaluation"] == [0, 4, 8]
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["step-00000004", "step-00000008"]
    checkpoint = ProxyByteForCausalLM.from_pretrained(finished / "checkpoints" / "step-00000008" / "model")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), checkpoint.parameters(), strict=True))
    assert load_config(finished / "config.yaml").output == finished


def test_no_file_of_a_run_is_a_pickle_or_may_hold_one(recipe, tmp_path):
    folder = run(recipe, tmp_path, log={"trackers": ["tensorboard"], "plot": True})
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    assert {path.suffix for path in files} <= {
        ".json",
        ".jsonl",
        ".yaml",
        ".yml",
        ".safetensors",
        ".png",
        ".py",
        ".0",
        ".1",
    }
    for path in files:
        head = path.read_bytes()[:2]
        assert head != b"PK", f"{path} is a zip archive, as torch.save writes"
        assert not (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"), f"{path} starts as a pickle does"


def test_the_loss_of_a_step_is_the_sum_over_targets_by_their_number(recipe, tmp_path):
    config = load_config(recipe(), ["model.backbone_config.attention_dropout=0"])
    data = open_data(config)
    model = model_source(config, data.num_codes).make(None).double()
    batch = data.dataset.batch(data.row_order(config.batch, config.plan.seed).rows(0))
    total, count, raw, raw_count = 0.0, 0, 0.0, 0
    gradients = []
    for row in range(4):
        ids = torch.from_numpy(batch.input_ids[row : row + 1])
        output = model.model(
            input_ids=ids, position_ids=torch.from_numpy(batch.position_ids[row : row + 1]), use_cache=False
        )
        logits = model.lm_head(output.last_hidden_state)
        losses = -torch.log_softmax(logits[0, :-1], dim=-1)
        for position, label in enumerate(batch.labels[row, 1:].tolist()):
            if label >= 0:
                total, count = total + losses[position, label], count + 1
            if 64 <= label < 320:
                raw, raw_count = raw + losses[position, label], raw_count + 1
    gradients = torch.autograd.grad(total / count, list(model.parameters()))
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))

    folder = run(recipe, tmp_path, "model.backbone_config.attention_dropout=0")
    first = next(line for line in lines(folder) if line["kind"] == "train")
    assert first["targets"] == count
    assert first["loss"] == pytest.approx(total.item() / count, rel=1e-6)
    assert first["raw/loss"] == pytest.approx(raw.item() / raw_count, rel=1e-6)
    assert first["raw/bpb"] == pytest.approx(raw.item() / raw_count / math.log(2), rel=1e-6)
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_accumulation_changes_nothing(recipe, tmp_path, read_losses):
    no_dropout = "model.backbone_config.attention_dropout=0"
    whole = read_losses(run(recipe, tmp_path, no_dropout, "batch.rows_per_device=4", output="whole"))
    for rows in (1, 2):
        parts = read_losses(run(recipe, tmp_path, no_dropout, f"batch.rows_per_device={rows}", output=f"parts{rows}"))
        assert parts == [pytest.approx(line, rel=2e-6) for line in whole]


def test_recomputing_activations_changes_no_bit(recipe, tmp_path, read_losses):
    kept = read_losses(run(recipe, tmp_path, output="kept"))
    again = run(recipe, tmp_path, "compute.activation_checkpointing=true", output="recomputed")
    assert read_losses(again) == kept


@pytest.mark.slow
def test_compiled_blocks_give_the_same_losses(recipe, tmp_path, read_losses):
    no_dropout = "model.backbone_config.attention_dropout=0"
    eager = read_losses(run(recipe, tmp_path, no_dropout, output="eager"))
    compiled = read_losses(run(recipe, tmp_path, no_dropout, "compute.compile=true", output="compiled"))
    assert compiled == [pytest.approx(line, rel=1e-4) for line in eager]


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_tracker_that_is_not_installed_is_named(recipe, tmp_path):
    with pytest.raises(ProxyByteError, match="wandb, which is not installed: pip install wandb"):
        run(recipe, tmp_path, log={"trackers": ["wandb"]})


def test_the_loss_falls_and_validation_is_the_bpb_of_the_saved_model(recipe, tmp_path):
    config = load_config(recipe(), ["plan.budget=16384", "optimizer.lr=1e-2", f"output={tmp_path / 'run'}"])
    train(config)
    logged = lines(config.output)
    bits = [line["validation/raw_bpb"] for line in logged if line["kind"] == "evaluation"]
    assert bits[-1] < 0.6 * bits[0]
    documents = open_data(config).validation_documents(config.evaluation)
    assert len(documents) == 4
    assert all(len(document) <= 100 for document in documents)
    model = ProxyByteForCausalLM.from_pretrained(config.output / "model")
    windows = Scoring(window=config.plan.row_capacity)
    assert bits[-1] == pytest.approx(bits_per_byte(model, documents, windows).bits_per_byte, rel=1e-6)


def test_a_finished_run_started_again_trains_no_step(finished, recipe, tmp_path):
    before = (finished / "metrics.jsonl").read_text()
    run(recipe, tmp_path)
    assert (finished / "metrics.jsonl").read_text() == before


def test_a_finished_run_started_again_says_so_and_what_comes_next(finished, recipe, tmp_path, caplog):
    caplog.set_level("INFO")
    run(recipe, tmp_path)
    said = [record.getMessage() for record in caplog.records]
    assert f"the run in {finished} is finished: step {STEPS} of {STEPS}, nothing is left to train" in said
    assert said[-1].startswith(f"next: proxybyte report {finished}, or proxybyte export {finished} --format full")


def test_a_run_without_its_model_is_not_finished(finished, recipe, tmp_path):
    shutil.rmtree(finished / "model")
    run(recipe, tmp_path)
    assert (finished / "model" / "config.json").is_file()


def test_a_run_ends_with_its_model_its_plot_and_commands_that_parse(recipe, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = run(recipe, tmp_path, output="a run", log={"trackers": [], "plot": True})
    *_, model, plot, last = [record.getMessage() for record in caplog.records]
    assert model == f"model in {folder / 'model'}"
    assert plot == f"curves in {folder / 'loss.png'}" and (folder / "loss.png").is_file()
    parser = build_parser(load_commands())
    for command in last.removeprefix("next: ").split(", or "):
        program, *words = shlex.split(command)
        assert program == "proxybyte" and str(folder) in map(str, vars(parser.parse_args(words)).values())


def test_a_run_goes_on_from_its_newest_whole_checkpoint(finished, recipe, tmp_path, read_losses):
    before = read_losses(finished)
    (finished / "checkpoints" / "step-00000008" / "optimizer.safetensors").write_bytes(b"half")
    run(recipe, tmp_path)
    assert read_losses(finished) == before


def test_going_on_under_another_config_is_refused(finished, recipe, tmp_path):
    with pytest.raises(ProxyByteError, match=r"optimizer\.lr=0\.001 \(now 0\.5\)"):
        run(recipe, tmp_path, "optimizer.lr=0.5")


def test_going_on_with_other_data_is_refused(finished, recipe, tmp_path, prepared):
    other = tmp_path / "other"
    shutil.copytree(prepared, other)
    shutil.rmtree(other / "train")
    shutil.copytree(prepared / "validation", other / "train")
    with pytest.raises(ProxyByteError, match="not the data that the run"):
        run(recipe, tmp_path, "plan.budget=2048", data=str(other))


def test_a_new_run_starts_from_the_weights_of_a_model_folder(finished, recipe, tmp_path):
    config = load_config(recipe(model={"checkpoint": str(finished / "model")}), [f"output={tmp_path / 'next'}"])
    start = model_source(config, NUM_CODES).make(None)
    saved = ProxyByteForCausalLM.from_pretrained(finished / "model")
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), saved.parameters(), strict=True))
    with pytest.raises(ProxyByteError, match=r"has 600 symbols, but the compressor of .* needs 720"):
        model_source(config, 400).make(None)
    with pytest.raises(ProxyByteError, match=r"set plan\.document_opening='<raw>'"):
        prefixed = load_config(config.output.parent / "recipe.yaml", ["plan.document_prefix=true"])
        model_source(prefixed, NUM_CODES).make(None)


def test_nan_weights_stop_the_run_and_name_the_rows_that_met_them(recipe, tmp_path):
    config = load_config(recipe(), ["model.backbone_config.tie_word_embeddings=false"])
    model = model_source(config, NUM_CODES).make(None)
    data = open_data(config)
    numbers = data.row_order(config.batch, config.plan.seed).rows(0)
    rows = data.dataset.batch(numbers).input_ids[:, :-1]
    # A symbol that some of the first step's rows show to the model and others do not.
    symbol = next(s for s in range(64, 320 + NUM_CODES) if 0 < (rows == s).any(axis=1).sum() < 4)
    poisoned = sorted(numbers[(rows == symbol).any(axis=1)].tolist())
    with torch.no_grad():
        model.get_input_embeddings().weight[symbol] = math.nan
    model.save_pretrained(tmp_path / "poisoned")
    with pytest.raises(ProxyByteError) as error:
        run(recipe, tmp_path, output="nan", model={"checkpoint": str(tmp_path / "poisoned")})
    assert f"row(s) {', '.join(map(str, poisoned))} is not finite at step 1" in str(error.value)
    assert not (tmp_path / "nan" / "checkpoints").exists()


def test_a_missing_shard_stops_the_run_before_it_begins(recipe, tmp_path, prepared):
    broken = tmp_path / "broken"
    shutil.copytree(prepared, broken)
    (shard,) = broken.glob("train/data-00001-*.arrow")
    shard.unlink()
    with pytest.raises(ProxyByteError, match=shard.name):
        run(recipe, tmp_path, data=str(broken))


def test_a_row_that_cannot_be_read_is_named(recipe, tmp_path, prepared, write_split):
    broken = tmp_path / "broken"
    shutil.copytree(prepared, broken)
    shutil.rmtree(broken / "train")
    write_split(broken / "train", [b"short"] * 3, load_compressor(prepared / "compressor"), claimed_bytes=5000)
    with pytest.raises(ProxyByteError, match=r"row\(s\) 0 cannot be read from .*train"):
        run(recipe, tmp_path, "plan.schedule.rate=0", "plan.schedule.warmup=0", data=str(broken))


def test_a_run_folder_that_cannot_be_written_is_named(recipe, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ProxyByteError, match=r"the run folder .*file cannot be written"):
        run(recipe, tmp_path, output="file")


def test_a_plan_of_less_than_a_step_is_refused(recipe, tmp_path):
    with pytest.raises(ProxyByteError, match=r"holds 2 row\(s\) of 64 symbols, less than one step of 4"):
        run(recipe, tmp_path, "plan.budget=128")


def test_tensorboard_shows_each_step_once_after_a_resumption(recipe, tmp_path):
    changes = {"log": {"trackers": ["tensorboard"], "plot": False, "every": 1}}
    folder = run(recipe, tmp_path, **changes)
    shutil.rmtree(folder / "checkpoints" / "step-00000008")
    run(recipe, tmp_path, **changes)
    (events,) = {path.parent for path in folder.glob("tensorboard/proxybyte/events*")}
    reader = EventAccumulator(str(events)).Reload()
    assert [event.step for event in reader.Scalars("loss")] == list(range(1, STEPS + 1))


def test_the_command_says_what_it_would_do_and_does_nothing(recipe, tmp_path, capsys):
    assert main(["--config", str(recipe()), "--dry-run"]) == 0
    assert "8 steps" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_bad_input_exits_with_2_and_one_sentence(recipe, capsys):
    assert main(["--config", str(recipe()), "optimizer.speed=1"]) == 2
    assert "unknown key optimizer.speed" in capsys.readouterr().err
