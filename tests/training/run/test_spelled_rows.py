"""Spelled rows: what they are, that gradients are handed on, and that nothing of them is left in the model."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.flops import training_flops
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_RAW_SYMBOLS
from proxybyte.training.compressors import load_compressor
from proxybyte.training.compressors.regroup import RegroupCompressor
from proxybyte.training.run.assemble import model_source, open_data, row_flops
from proxybyte.training.run.config_io import load_config
from proxybyte.training.run.spelled import SpelledRows, SpellingTable, symbol_bytes
from proxybyte.training.train import train

ON = "levers.spelled_rows=true"
TIED = "model.backbone_config.tie_word_embeddings"
WORDS = [b"ab", None, b"a", b"bca", b"", b"\xff" * 6]


def spelled(rows, places, word):
    """The sum of the definition, byte by byte."""
    total = torch.zeros(rows.shape[1], dtype=rows.dtype)
    for i, byte in enumerate(word or b""):
        total = total + places[min(i, len(places) - 1)] * rows[byte]
    return total / max(len(word or b""), 1) ** 0.5


def test_a_row_is_the_sum_of_its_bytes_rows_by_place():
    generator = torch.Generator().manual_seed(0)
    rows, places = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (256, 4))
    table = SpellingTable.build(WORDS, 4).to(rows)
    expected = torch.stack([spelled(rows, places, word) for word in WORDS])
    torch.testing.assert_close(table.rows(rows, places), expected, rtol=0, atol=1e-14)
    assert SpellingTable.build(WORDS, 99).places == 6


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_are_those_of_rows_built_inside_the_graph(recipe, tied):
    config = load_config(recipe(), [f"{TIED}={tied}", "model.backbone_config.attention_dropout=0"])
    data = open_data(config)
    model = model_source(config, data.num_codes).make(None).double()
    words = symbol_bytes(load_compressor(data.compressor))
    rows = SpelledRows(model, SpellingTable.build(words, 3), 7, None, keep=False)
    for matrix in rows.matrices.values():
        matrix.residual.data.normal_(std=0.02)
        assert set(matrix.places[1].tolist()) == {1.0, -1.0}
    rows.write()
    batch = data.dataset.batch(range(3))
    inputs = {n: torch.from_numpy(getattr(batch, n)) for n in ("input_ids", "position_ids", "labels")}
    model(**inputs, use_cache=False).loss.backward()
    rows.hand_on()

    leaves, made = [], {}
    for name, matrix in rows.matrices.items():
        raw, places, residual = (
            getattr(matrix, part).detach().clone().requires_grad_() for part in ("raw", "places", "residual")
        )
        codes = torch.stack([spelled(raw[BYTE_OFFSET:], places, word) for word in words]) + residual
        made[name] = torch.cat([raw, codes])
        leaves.append((matrix, raw, places, residual))
    embedding, head = made["spelled_embedding"], made.get("spelled_head", made["spelled_embedding"])
    assert len(made) == (1 if tied else 2)
    torch.testing.assert_close(model.lm_head.weight.data, head.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(model.get_input_embeddings().weight.data, embedding.detach(), rtol=0, atol=1e-14)
    hidden = model.model(
        inputs_embeds=embedding[inputs["input_ids"]], position_ids=inputs["position_ids"], use_cache=False
    ).last_hidden_state
    logits = (hidden @ head.T)[:, :-1].flatten(0, 1)
    torch.nn.functional.cross_entropy(logits, inputs["labels"][:, 1:].flatten()).backward()
    for matrix, raw, places, residual in leaves:
        for mine, theirs in ((matrix.raw, raw), (matrix.places, places), (matrix.residual, residual)):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    assert model.lm_head.weight.grad is None


@pytest.mark.parametrize("tied", [True, False])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(recipe, tmp_path, read_losses, tied):
    asked = [ON, f"{TIED}={tied}"]
    whole = load_config(recipe(), [*asked, f"output={tmp_path / 'whole'}"])
    train(whole)
    config = load_config(recipe(), asked)
    train(config)
    assert read_losses(config.output) == read_losses(whole.output)
    shutil.rmtree(config.output / "checkpoints/step-00000008")
    shutil.rmtree(config.output / "model")
    train(config)
    assert read_losses(config.output) == read_losses(whole.output)
    ours, theirs = ((folder / "model/model.safetensors").read_bytes() for folder in (config.output, whole.output))
    assert ours == theirs
    plain = load_config(recipe(), [f"{TIED}={tied}", f"output={tmp_path / 'plain'}"])
    train(plain)
    assert read_losses(plain.output) != read_losses(whole.output)


def test_two_processes_give_the_losses_of_one(recipe, run_ranks, tmp_path, read_losses):
    config = load_config(recipe(), [ON, f"output={tmp_path / 'alone'}"])
    train(config)
    run_ranks(2, recipe(), ON)
    assert read_losses(tmp_path / "run") == [pytest.approx(line, rel=2e-5) for line in read_losses(config.output)]


def test_nothing_of_it_is_left_in_model_and_exports(recipe, tmp_path):
    config = load_config(recipe(), [ON])
    train(config)
    model = ProxyByteForCausalLM.from_pretrained(config.output / "model").eval()
    assert not [name for name in model.state_dict() if "spelled" in name]
    out = export_model(config.output, tmp_path / "native", ExportOptions(ExportFormat.NATIVE))
    plain = AutoModelForCausalLM.from_pretrained(out).eval()
    probe = torch.arange(60, 120)[None]
    with torch.no_grad():
        expected = model(probe).logits[..., :NUM_RAW_SYMBOLS]
        torch.testing.assert_close(plain(probe).logits, expected, rtol=0, atol=1e-5)
    full = export_model(config.output, tmp_path / "full", ExportOptions(ExportFormat.FULL))
    assert not list(full.glob("*spelled*"))


def test_a_trained_model_keeps_its_rows_and_residuals_make_up(recipe, tmp_path):
    first = load_config(recipe(), [f"output={tmp_path / 'first'}"])
    train(first)
    before = ProxyByteForCausalLM.from_pretrained(first.output / "model")
    words = symbol_bytes(load_compressor(first.output / "compressor"))
    rows = before.get_input_embeddings().weight.detach().clone()
    SpelledRows(before, SpellingTable.build(words, 3), 7, None, keep=True)
    torch.testing.assert_close(before.get_input_embeddings().weight.data, rows, rtol=0, atol=1e-6)


def test_its_flops_are_in_the_rows(recipe):
    data = open_data(load_config(recipe()))
    shape = model_source(load_config(recipe()), data.num_codes).make(None).config
    length, document = 64, data.document_length
    lengths = [len(word or b"") for word in symbol_bytes(load_compressor(data.compressor))]
    added = row_flops(load_config(recipe(), [ON]), shape, data) - training_flops(shape, length, document)
    # Forward: weight and add each byte's entry of a table of place times byte; backward twice that.
    once = 6 * sum(lengths) * 32 + 3 * min(16, max(lengths)) * 256 * 32
    assert added == pytest.approx(once / 4)
    assert row_flops(load_config(recipe()), shape, data) == training_flops(shape, length, document)


def test_regrouped_bytes_spell():
    assert symbol_bytes(RegroupCompressor(8))[65] == b"A"
    assert symbol_bytes(RegroupCompressor(16))[0x4142] == b"AB"
    with pytest.raises(ProxyByteError, match="do not spell"):
        symbol_bytes(RegroupCompressor(4))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["compute.parallel=fsdp"], "spelled_rows runs under"),
        (["plan.schedule.rate=0", "plan.schedule.warmup=0"], "needs compressed symbols"),
    ],
)
def test_what_does_not_fit_is_refused(recipe, overrides, said):
    with pytest.raises(ProxyByteError, match=said):
        train(load_config(recipe(), [ON, *overrides]))


def test_symbols_start_as_their_spelling(recipe):
    config = load_config(recipe(), [ON, "optimizer.lr=1e-30"])
    train(config)
    model = ProxyByteForCausalLM.from_pretrained(config.output / "model")
    rows = model.get_input_embeddings().weight.detach()
    words = symbol_bytes(load_compressor(config.output / "compressor"))
    single = next(code for code, word in enumerate(words) if word and len(word) == 1)
    torch.testing.assert_close(rows[COMPRESSED_OFFSET + single], rows[BYTE_OFFSET + words[single][0]])
    assert json.loads((config.output / "model/config.json").read_text())["num_compressed_symbols"] == len(words)
