"""Superposed bytes: rows, loss, resume, processes, isolation, and what export leaves; the curriculum they need."""

import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.training.run.assemble import model_source, open_data
from proxybyte.training.run.config import Decay, LearningRateConfig
from proxybyte.training.run.config_io import load_config
from proxybyte.training.run.optim import learning_rate
from proxybyte.training.run.superposed import bag_losses
from proxybyte.training.stream.mixed_view import BAG, collate
from proxybyte.training.stream.placement import Form
from proxybyte.training.train import train

SIZE = 4
ON = [
    f"plan.superposed={SIZE}",
    "plan.schedule.warmup=0",
    "plan.schedule.rate=1",
    "plan.schedule.decay=0.5",
    "plan.schedule.decay_shape=step",
]
NO_DROPOUT = "model.backbone_config.attention_dropout=0"


@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_bags_of_a_stream_are_its_documents_cut_in_order(recipe, size):
    data = open_data(load_config(recipe(), [*ON, f"plan.superposed={size}", "plan.schedule.rate=0.5"]))
    views = data.mixed_views
    batch = views.batch(range(len(views)))
    placed = views.plan.placements
    # The stream written out: opening, text (a bag or a byte a symbol), closing, <eos>.
    stream = []
    for document, form in zip(placed.document.tolist(), placed.form.tolist(), strict=True):
        text = views.split.raw(document, 0, int(views.split.n_bytes[document])).tolist()
        if form == Form.COMPRESSED:
            bags = [[64 + b for b in text[i : i + size]] for i in range(0, len(text), size)]
            stream += [14, *bags, 15, 2]
        else:
            stream += [12, *(64 + b for b in text), 13, 2]
    capacity = views.plan.config.row_capacity
    bags_seen = 0
    for row in range(len(views)):
        for place, wanted in enumerate(stream[row * capacity : (row + 1) * capacity], start=1):
            found, bag = int(batch.input_ids[row, place]), batch.bags[row, place].tolist()
            if isinstance(wanted, list):
                bags_seen += 1
                assert (found, bag) == (BAG, wanted + [0] * (size - len(wanted)))
            else:
                assert (found, bag) == (wanted, [0] * size)
    assert bags_seen > 20


def test_loss_and_gradient_are_those_of_the_definition(recipe):
    config = load_config(recipe(), [*ON, NO_DROPOUT, "plan.schedule.rate=0.5"])
    data = open_data(config)
    model = model_source(config, data.num_codes).make(None).double()
    assert model.config.vocab_size == 320
    every = data.dataset.batch(range(len(data.dataset)))
    shows = (every.input_ids == BAG).any(axis=1)
    batch = collate(data.dataset.batch([*np.flatnonzero(shows)[:2], *np.flatnonzero(~shows)[:2]]))
    loss, output = bag_losses(model, batch, 100.0, raw_rows_only=False)
    gradients = torch.autograd.grad(loss, list(model.parameters()))

    weight = model.get_input_embeddings().weight
    total, summed = 0.0, torch.zeros(4, 63, dtype=torch.float64)
    for row in range(4):
        ids, labels, bags = batch.input_ids[row].tolist(), batch.labels[row].tolist(), batch.bags[row].tolist()
        held = [[b for b in bag if b] for bag in bags]
        rows = torch.stack(
            [
                torch.stack([weight[b] for b in bag]).mean(0) if i == BAG else weight[i]
                for i, bag in zip(ids, held, strict=True)
            ]
        )
        hidden = model.model(
            inputs_embeds=rows[None], position_ids=batch.position_ids[row][None], use_cache=False
        ).last_hidden_state[0]
        logs = torch.log_softmax(model.lm_head(hidden), dim=-1)
        for place in range(1, 64):
            if labels[place] == -100:
                continue
            bytes_ = held[place] if labels[place] == BAG else [labels[place]]
            nats = [-logs[place - 1, b] for b in bytes_]
            total = total + sum(nats) / len(nats)
            summed[row, place - 1] = float(sum(nats).detach())
    assert (batch.labels == BAG).sum() > 20
    torch.testing.assert_close(loss, total / 100, rtol=1e-12, atol=0)
    torch.testing.assert_close(output.target_nll.detach(), summed, rtol=1e-10, atol=1e-12)
    for mine, theirs in zip(gradients, torch.autograd.grad(total / 100, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)


def test_documents_of_a_row_do_not_see_each_other(recipe):
    config = load_config(recipe(), [*ON, NO_DROPOUT, "plan.schedule.decay=0"])
    data = open_data(config)
    model = model_source(config, 0).make(None).double()
    batch = collate(data.dataset.batch(range(8)))
    starts = (batch.position_ids[:, 2:] == 0).nonzero()
    row, place = starts[0].tolist()
    _, before = bag_losses(model, batch, 1.0, False)
    batch.bags[row, 1 : place + 1] = torch.where(batch.bags[row, 1 : place + 1] > 0, 70, 0)
    _, after = bag_losses(model, batch, 1.0, False)
    assert not torch.equal(before.target_nll[row, :place], after.target_nll[row, :place])
    assert torch.equal(before.target_nll[row, place + 2 :], after.target_nll[row, place + 2 :])


def test_a_resumed_run_is_the_uninterrupted_one_and_ends_raw(recipe, tmp_path, read_losses):
    whole = load_config(recipe(), [*ON, f"output={tmp_path / 'whole'}"])
    train(whole)
    config = load_config(recipe(), ON)
    train(config)
    shutil.rmtree(config.output / "checkpoints/step-00000008")
    shutil.rmtree(config.output / "model")
    train(config)
    assert read_losses(config.output) == read_losses(whole.output)
    views = open_data(config).mixed_views
    ids = views.batch(range(len(views))).input_ids
    shown = np.flatnonzero((ids == BAG).any(axis=1))
    # The first half is bags, and the one document that began before the border.
    assert set(range(len(views) // 2)) <= set(shown.tolist())
    assert len(shown) <= len(views) // 2 + 1
    out = export_model(config.output, tmp_path / "native", ExportOptions(ExportFormat.NATIVE))
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == 320


def test_two_processes_give_the_losses_of_one(recipe, run_ranks, tmp_path, read_losses):
    config = load_config(recipe(), [*ON, f"output={tmp_path / 'alone'}"])
    train(config)
    run_ranks(2, recipe(), *ON)
    assert read_losses(tmp_path / "run") == [pytest.approx(line, rel=2e-5) for line in read_losses(config.output)]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["compute.parallel=fsdp"], "superposed runs under"),
        (["evaluation.views=[compressed]"], "no compressed view"),
        (["plan.superposed=1"], "at least 2 bytes"),
        (["levers.spelled_rows=true"], "no compressed symbols"),
    ],
)
def test_what_does_not_fit_is_refused(recipe, overrides, said):
    with pytest.raises(ProxyByteError, match=said):
        load_config(recipe(), [*ON, *overrides])


def test_the_learning_rate_begins_anew_at_the_border():
    whole = LearningRateConfig(shape=Decay.COSINE, warmup=0.1, final=0.1, rewarm=0.5)
    plain = whole.model_copy(update={"rewarm": 0.0})
    rates = [learning_rate(whole, 2.0, step, 100, 40) for step in range(100)]
    assert rates[:40] == [learning_rate(plain, 2.0, step, 40) for step in range(40)]
    assert rates[40:] == [learning_rate(plain, 1.0, step, 60) for step in range(60)]
    assert max(rates[40:]) == 1.0
    assert [learning_rate(plain, 2.0, step, 100, 40) for step in (0, 50)] == [
        learning_rate(plain, 2.0, step, 100) for step in (0, 50)
    ]
