"""Runs of a model with heads that predict further."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from proxybyte import ProxyByteError, ProxyByteForCausalLM
from proxybyte.symbols import COMPRESSED_OFFSET, IGNORE_INDEX
from proxybyte.training.run.assemble import model_source, open_data
from proxybyte.training.run.config_io import load_config
from proxybyte.training.run.metrics import head_metric
from proxybyte.training.run.plots import draw
from proxybyte.training.train import train

HEADS = ("model.num_pred_heads=3", "model.num_raw_pred_heads=2")
NO_DROPOUT = "model.backbone_config.attention_dropout=0"
NUM_CODES = 280


@pytest.fixture
def run(recipe, tmp_path):
    """Trains a model with heads into a folder of the given name."""

    def make(name: str, *overrides: str) -> Path:
        config = load_config(recipe(), [f"output={tmp_path / name}", *HEADS, *overrides])
        assert train(config).finished
        return config.output

    return make


def lines(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == "train"]


def head_losses(folder: Path) -> list[list[float]]:
    """Each head's loss (-1 where a step has no raw text for it), and the gradient norm, at each step."""
    return [[*(line.get(head_metric(head), -1.0) for head in range(5)), line["grad_norm"]] for line in lines(folder)]


def test_the_first_steps_losses_and_gradient_are_those_of_the_definition(run, recipe):
    config = load_config(recipe(), [*HEADS, NO_DROPOUT])
    data = open_data(config)
    model = model_source(config, data.num_codes).make(None).double()
    batch = data.dataset.batch(data.row_order(config.batch, config.plan.seed).rows(0))
    blocks = [model.lm_head.weight, *model.pred_heads.weight.chunk(2), *model.raw_pred_heads.weight.chunk(2)]
    nats = [[] for _ in blocks]
    total = 0.0
    for ids, positions, labels in zip(batch.input_ids, batch.position_ids, batch.labels, strict=True):
        given = {"input_ids": torch.from_numpy(ids)[None], "position_ids": torch.from_numpy(positions)[None]}
        hidden = model.model(**given, use_cache=False).last_hidden_state[0]
        scores = [F.log_softmax(hidden @ block.T, dim=1) for block in blocks]
        for t in range(len(ids)):
            here = []
            for head in range(5):
                targets = labels[t + 1 : t + 2 + head]
                if len(targets) <= head or targets[-1] == IGNORE_INDEX:
                    continue
                if head and (positions[t + 1 : t + 2 + head] == 0).any():
                    continue
                if head >= 3 and ((targets < 0) | (targets >= COMPRESSED_OFFSET)).any():
                    continue
                here.append(-scores[head][t, targets[-1]])
                nats[head].append(here[-1].item())
            if here:
                total = total + torch.stack(here).mean()
    gradients = torch.autograd.grad(total / len(nats[0]), list(model.parameters()))
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))

    first = lines(run("run", NO_DROPOUT))[0]
    for head, values in enumerate(nats):
        assert first[head_metric(head)] == pytest.approx(sum(values) / len(values), rel=1e-6)
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_accumulation_changes_no_heads_loss(run):
    whole = head_losses(run("whole", NO_DROPOUT, "batch.rows_per_device=4"))
    parts = head_losses(run("parts", NO_DROPOUT, "batch.rows_per_device=1"))
    assert parts == [pytest.approx(line, rel=2e-6) for line in whole]


def test_two_processes_give_every_heads_loss_of_one_to_the_last_bit(run, recipe, run_ranks, tmp_path):
    alone = head_losses(run("alone"))
    run_ranks(2, recipe(), *HEADS)
    assert head_losses(tmp_path / "run") == alone


def test_sharded_processes_give_every_heads_loss_of_one_and_resume(run, recipe, run_ranks, tmp_path):
    alone = head_losses(run("alone"))
    run_ranks(2, recipe(), *HEADS, "compute.parallel=fsdp")
    assert head_losses(tmp_path / "run") == [pytest.approx(line, rel=2e-5) for line in alone]
    (tmp_path / "run" / "checkpoints" / "step-00000008" / "state.json").unlink()
    assert head_losses(run("run")) == [pytest.approx(line, rel=2e-5) for line in alone]


def test_a_run_with_heads_resumes_to_the_bit(run, tmp_path):
    whole = head_losses(run("run"))
    (tmp_path / "run" / "checkpoints" / "step-00000008" / "state.json").unlink()
    assert head_losses(run("run")) == whole
    model = ProxyByteForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert model.pred_heads.weight.shape == (2 * 600, 32)
    assert model.raw_pred_heads.weight.shape == (2 * 320, 32)


def test_a_checkpoint_without_heads_gets_new_ones_beside_its_weights(recipe, tmp_path):
    torch.manual_seed(1)
    plain = model_source(load_config(recipe()), NUM_CODES).make(None)
    plain.save_pretrained(tmp_path / "plain")
    source = {"checkpoint": str(tmp_path / "plain")}
    config = load_config(recipe(model=source), list(HEADS))
    model, again = model_source(config, NUM_CODES).make(None), model_source(config, NUM_CODES).make(None)
    for name, weight in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert model.pred_heads.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    model.save_pretrained(tmp_path / "headed")
    headed = {"checkpoint": str(tmp_path / "headed")}
    kept = model_source(load_config(recipe(model=headed)), NUM_CODES).make(None)
    assert torch.equal(kept.raw_pred_heads.weight, model.raw_pred_heads.weight)
    with pytest.raises(ProxyByteError, match=r"has num_pred_heads=3: leave model\.num_pred_heads out"):
        model_source(load_config(recipe(model={**headed, "num_pred_heads": 5})), NUM_CODES).make(None)


def test_the_picture_has_a_curve_for_each_head(tmp_path):
    found = [{"kind": "train", "step": s, "loss": 5 / s, "head_1/loss": 6 / s, "head_2/loss": 7 / s} for s in (1, 2, 3)]
    draw(found, tmp_path / "heads.png")
    draw([{"kind": "train", "step": 1, "loss": 5.0}], tmp_path / "plain.png")
    heads, plain = (int.from_bytes((tmp_path / f"{name}.png").read_bytes()[16:20]) for name in ("heads", "plain"))
    assert (plain, heads) == (11 * 120, 16 * 120)
