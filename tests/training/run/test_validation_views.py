"""What a run scores of its validation documents: either view, or both."""

import json
import math

import pytest
import torch

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.eval import Scoring, bits_per_byte, compressed_bits_per_byte
from proxybyte.training.compressors import load_compressor
from proxybyte.training.run.assemble import open_data
from proxybyte.training.run.config_io import load_config
from proxybyte.training.run.validation import code_documents, heads_that_fit
from proxybyte.training.train import train


def evaluations(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == "evaluation"]


def test_both_views_are_those_of_the_saved_model_on_the_same_documents(recipe):
    config = load_config(recipe(), ["evaluation.views=[raw, compressed]"])
    train(config)
    last = evaluations(config.output)[-1]
    data = open_data(config)
    texts = data.validation_documents(config.evaluation)
    two = code_documents(texts, load_compressor(data.compressor))
    assert two.texts == texts
    model = ProxyByteForCausalLM.from_pretrained(config.output / "model")
    scoring = Scoring(window=config.plan.row_capacity)
    sizes = [len(text) for text in texts]
    assert last["validation/raw_bpb"] == pytest.approx(bits_per_byte(model, texts, scoring).bits_per_byte, rel=1e-6)
    compressed = compressed_bits_per_byte(model, two.codes, sizes, scoring).bits_per_byte
    assert last["validation/compressed_bpb"] == pytest.approx(compressed, rel=1e-6)


def test_validation_holds_no_logits_beside_a_loss(recipe, monkeypatch):
    """A vocabulary whose logits do not fit is scored by its losses, as that of 65,856 rows is."""
    monkeypatch.setattr("proxybyte.eval.scoring.LOGITS_IN_A_PASS", 1)
    seen = []
    forward = ProxyByteForCausalLM.forward

    def watched(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        if not torch.is_grad_enabled():
            seen.append((kwargs.get("labels") is not None, output.logits is not None))
        return output

    monkeypatch.setattr(ProxyByteForCausalLM, "forward", watched)
    train(load_config(recipe(), ["evaluation.views=[raw, compressed]"]))
    assert (True, False) in seen
    assert (True, True) not in seen


def test_the_compressed_view_alone(recipe):
    config = load_config(recipe(), ["evaluation.views=[compressed]", "log.plot=true"])
    train(config)
    assert all(set(line) == {"kind", "step", "validation/compressed_bpb"} for line in evaluations(config.output))
    assert (config.output / "loss.png").stat().st_size > 1000


def test_no_view_at_all_is_refused(recipe):
    with pytest.raises(ProxyByteError, match=r"key evaluation\.views"):
        load_config(recipe(), ["evaluation.views=[]"])


def test_a_run_of_raw_bytes_alone_has_no_rows_for_compressed_symbols(recipe):
    config = load_config(recipe(), ["plan.schedule.rate=0", "plan.schedule.warmup=0"])
    train(config)
    assert ProxyByteForCausalLM.from_pretrained(config.output / "model").config.vocab_size == 320


def test_transfer_is_that_of_the_saved_model_in_both_directions(recipe):
    config = load_config(recipe(), ["evaluation.transfer=true", "log.plot=true"])
    train(config)
    last = evaluations(config.output)[-1]
    data = open_data(config)
    heads = heads_that_fit(data.validation_documents(config.evaluation), load_compressor(data.compressor), 64)
    assert heads.texts and all(len(t) + len(c) + 5 <= 64 for t, c in zip(heads.texts, heads.codes, strict=True))
    model = ProxyByteForCausalLM.from_pretrained(config.output / "model").double().eval()
    wanted = dict.fromkeys(("raw_alone", "raw_given", "compressed_alone", "compressed_given"), 0.0)
    for text, code in zip(heads.texts, heads.codes, strict=True):
        raw, codes = [64 + byte for byte in text], [320 + int(c) for c in code]
        for name, context, answer, rows in (
            ("raw_alone", [12], raw, 320),
            ("raw_given", [14, *codes, 15, 12], raw, 320),
            ("compressed_alone", [14], codes, None),
            ("compressed_given", [12, *raw, 13, 14], codes, None),
        ):
            with torch.no_grad():
                logits = model(torch.tensor([[*context, *answer]]), use_cache=False).logits[0, :, :rows]
            places = range(len(context) - 1, len(context) - 1 + len(answer))
            wanted[name] -= sum(float(logits[p].log_softmax(0)[s]) for p, s in zip(places, answer, strict=True))
    count = sum(map(len, heads.texts))
    for name, nats in wanted.items():
        assert last[f"validation/transfer/{name}_bpb"] == pytest.approx(nats / math.log(2) / count, rel=1e-5)
    assert (config.output / "loss.png").stat().st_size > 1000


def test_heads_are_as_long_as_both_views_fit(prepared):
    compressor = load_compressor(prepared / "compressor")
    texts = [b"return self " * 40, b"None"]
    for room in (30, 64, 100, 400):
        heads = heads_that_fit(texts, compressor, room)
        used = max(len(text) + len(code) + 5 for text, code in zip(heads.texts, heads.codes, strict=True))
        assert used <= room
        assert heads.texts[1] == b"None" or room == 30
    assert len(heads_that_fit(texts, compressor, 4000).texts[0]) == 192
