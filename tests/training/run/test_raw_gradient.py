"""The gradient norm of the raw view's targets: what it is, and that measuring it changes nothing."""

import json
import math

import pytest
import torch

from proxybyte.training.run.assemble import model_source, open_data
from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train

NO_DROPOUT = "model.backbone_config.attention_dropout=0"


def lines(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == "train"]


@pytest.mark.parametrize("rows_per_device", [4, 2])
def test_it_is_the_norm_of_the_raw_targets_share_by_autograd(recipe, tmp_path, rows_per_device):
    mixed = ["plan.schedule.warmup=0", "plan.schedule.rate=0.5"]
    overrides = [NO_DROPOUT, f"batch.rows_per_device={rows_per_device}", "log.raw_gradient_every=1", *mixed]
    config = load_config(recipe(), overrides)
    data = open_data(config)
    model = model_source(config, data.num_codes).make(None).double()
    batch = data.dataset.batch(data.row_order(config.batch, config.plan.seed).rows(0))
    raw, count = 0.0, 0
    for row in range(4):
        ids, positions = torch.from_numpy(batch.input_ids[row]), torch.from_numpy(batch.position_ids[row])
        hidden = model.model(input_ids=ids[None], position_ids=positions[None], use_cache=False).last_hidden_state
        losses = -torch.log_softmax(model.lm_head(hidden)[0, :-1], dim=-1)
        for position, label in enumerate(batch.labels[row, 1:].tolist()):
            count += label >= 0
            if 64 <= label < 320:
                raw = raw + losses[position, label]
    gradients = torch.autograd.grad(raw / count, list(model.parameters()), allow_unused=True)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
    train(config)
    first = lines(config.output)[0]
    assert first["raw/grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert first["raw/grad_norm"] != pytest.approx(first["grad_norm"], rel=1e-2)


def test_measuring_changes_no_bit_of_the_run_and_happens_when_asked(recipe, tmp_path, read_losses):
    plain = load_config(recipe(), [f"output={tmp_path / 'plain'}"])
    measured = load_config(recipe(), [f"output={tmp_path / 'measured'}", "log.raw_gradient_every=3"])
    train(plain)
    train(measured)
    assert read_losses(measured.output) == read_losses(plain.output)
    assert [line["step"] for line in lines(measured.output) if "raw/grad_norm" in line] == [3, 6]
    assert not any("raw/grad_norm" in line for line in lines(plain.output))


def test_of_raw_bytes_alone_it_lacks_the_sentinels_only(recipe, tmp_path):
    raw_only = ["plan.schedule.rate=0", "plan.schedule.warmup=0", "log.raw_gradient_every=1", NO_DROPOUT]
    config = load_config(recipe(), raw_only)
    train(config)
    for line in lines(config.output):
        assert line["raw/grad_norm"] == pytest.approx(line["grad_norm"], rel=0.2)
