"""Fast scoring against a brute-force reading of the definition: one window at a time, full logits, float64."""

import copy
import gzip
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import LlamaForCausalLM

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.eval import (
    Scoring,
    bits_per_byte,
    compressed_bits_per_byte,
    gzip_bits_per_byte,
    scoring,
    tokenizer_bits_per_byte,
    uniform_bits_per_byte,
    xz_bits_per_byte,
)
from proxybyte.symbols import View

DOCUMENTS = [b"", b"a", b"def f(x):\n    return x\n", "naïve — 数".encode(), bytes(range(256)), b"spam and eggs " * 30]


@pytest.fixture
def brute_force_bits(reference):
    def bits(model, prefix: list[int], symbols: list[int], window: int, stride: int) -> float:
        """Bits of one sequence, window by window, as docs/evaluation.md defines them."""
        nats, done, start = 0.0, 0, 0
        while done < len(symbols):
            piece = symbols[start : start + window]
            nats += math.fsum(reference(model, prefix, piece)[done - start :])
            done = start + len(piece)
            start += stride
        return nats / math.log(2)

    return bits


def raw_symbols(document: bytes) -> list[int]:
    return [64 + byte for byte in document]


@pytest.fixture(params=["byte_llama", "proxy_llama"])
def byte_model(request):
    """A native export and our own class."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(("window", "stride"), [(None, None), (64, 16), (64, 64), (7, 3), (1, 1)])
def test_fast_equals_brute_force_for_each_document(byte_model, brute_force_bits, window, stride):
    result = bits_per_byte(byte_model, DOCUMENTS, Scoring(window=window, stride=stride, batch_positions=300))
    window, stride = (window, stride) if window else (95, 47)
    for document, bits in zip(DOCUMENTS, result.document_bits, strict=True):
        expected = brute_force_bits(byte_model, [12], raw_symbols(document), window, stride)
        assert bits == pytest.approx(expected, abs=1e-4 * max(1, len(document)))
    assert result.bits_per_byte == pytest.approx(result.bits / sum(map(len, DOCUMENTS)))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5).filter(any), st.integers(1, 400))
def test_batches_do_not_change_the_figure(byte_llama, documents, positions):
    together = bits_per_byte(byte_llama, documents, Scoring(batch_positions=positions))
    for document, bits in zip(documents, together.document_bits, strict=True):
        alone = bits_per_byte(byte_llama, [document]).bits if document else 0.0
        assert bits == pytest.approx(alone, abs=1e-4 * max(1, len(document)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator")
def test_an_accelerator_gives_the_figure_of_the_cpu(byte_model):
    on_cpu = bits_per_byte(byte_model, DOCUMENTS)
    on_device = bits_per_byte(copy.deepcopy(byte_model).to(torch.accelerator.current_accelerator()), DOCUMENTS)
    assert on_device.bits_per_byte == pytest.approx(on_cpu.bits_per_byte, abs=1e-4)


@pytest.mark.parametrize(("view", "prefix"), [(View.RAW, [1, 12]), (View.COMPRESSED, [1, 14])])
def test_bos_before_the_sentinel_where_the_model_was_trained_so(proxy_llama, view, prefix, brute_force_bits):
    model = copy.deepcopy(proxy_llama)
    model.config.document_opening = "<bos><raw>"
    if view is View.RAW:
        bits = bits_per_byte(model, [b"abc"]).bits
    else:
        bits = compressed_bits_per_byte(model, [np.array([33, 34, 35])], [9]).bits
    symbols = [161, 162, 163] if view is View.RAW else [353, 354, 355]
    assert bits == pytest.approx(brute_force_bits(model, prefix, symbols, 90, 90), abs=1e-3)


def test_a_model_in_training_is_scored_without_dropout_and_put_back(byte_llama):
    model = copy.deepcopy(byte_llama)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    model.train()
    assert bits_per_byte(model, [b"abcdef"]).bits == bits_per_byte(byte_llama, [b"abcdef"]).bits
    assert model.training


def test_a_wrapped_model_is_scored_as_the_model_in_it(proxy_llama):
    wrapped = torch.compile(torch.nn.DataParallel(proxy_llama))
    assert bits_per_byte(wrapped, DOCUMENTS).bits == bits_per_byte(proxy_llama, DOCUMENTS).bits


def test_half_precision_weights_are_summed_in_full(byte_llama):
    model = copy.deepcopy(byte_llama).bfloat16()
    exact = bits_per_byte(byte_llama, DOCUMENTS).bits_per_byte
    assert bits_per_byte(model, DOCUMENTS).bits_per_byte == pytest.approx(exact, rel=0.02)


def test_raw_bytes_cost_what_they_cost_the_native_export(proxy_llama):
    """A proxy model is scored as it runs on raw bytes: with its first 320 rows alone."""
    native = LlamaForCausalLM(copy.deepcopy(proxy_llama.config.backbone_config))
    native.load_state_dict(proxy_llama.state_dict())
    native.resize_token_embeddings(320)
    exported = bits_per_byte(native.eval(), DOCUMENTS, Scoring(window=32))
    ours = bits_per_byte(proxy_llama, DOCUMENTS, Scoring(window=32))
    np.testing.assert_allclose(ours.document_bits, exported.document_bits, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("logits_in_a_pass", [scoring.LOGITS_IN_A_PASS, 1], ids=["by logits", "by target_nll"])
def test_compressed_view_is_per_byte_of_text(proxy_llama, brute_force_bits, monkeypatch, logits_in_a_pass):
    monkeypatch.setattr(scoring, "LOGITS_IN_A_PASS", logits_in_a_pass)
    codes = [np.array([0, 49, 7, 7], dtype=np.uint16), np.array([], dtype=np.uint16), np.arange(40, dtype=np.uint16)]
    result = compressed_bits_per_byte(proxy_llama, codes, [11, 0, 150], Scoring(window=16, stride=8))
    expected = sum(brute_force_bits(proxy_llama, [14], [320 + int(c) for c in code], 16, 8) for code in codes)
    assert result.bits_per_byte == pytest.approx(expected / 161, abs=1e-4)
    assert result.n_symbols == 44


@pytest.mark.parametrize("logits_in_a_pass", [scoring.LOGITS_IN_A_PASS, 1], ids=["by logits", "by target_nll"])
def test_heads_that_predict_further_are_not_computed_and_change_nothing(proxy_llama, monkeypatch, logits_in_a_pass):
    monkeypatch.setattr(scoring, "LOGITS_IN_A_PASS", logits_in_a_pass)
    config = copy.deepcopy(proxy_llama.config)
    config.num_pred_heads = 3
    model = ProxyByteForCausalLM(config)
    model.load_state_dict(proxy_llama.state_dict(), strict=False)

    def refuse(*_: object) -> None:
        raise AssertionError("computed")

    model.pred_heads.register_forward_pre_hook(refuse)  # a head with a hook is always called as a module
    codes = [np.arange(40, dtype=np.uint16)]
    assert compressed_bits_per_byte(model, codes, [99]).bits == compressed_bits_per_byte(proxy_llama, codes, [99]).bits
    assert bits_per_byte(model, DOCUMENTS).bits == bits_per_byte(proxy_llama, DOCUMENTS).bits
    with pytest.raises(AssertionError, match="computed"):
        model(torch.tensor([[70, 71]]), labels=torch.tensor([[70, 71]]))


def test_codes_of_another_compressor_are_refused(byte_llama):
    with pytest.raises(ProxyByteError, match="code 3 but the model has rows for 0"):
        compressed_bits_per_byte(byte_llama, [np.array([1, 3])], [5])


def test_tokenizer_model_is_per_byte_of_text(brute_force_bits, token_llama):
    model, tokenizer = token_llama
    documents = [b"spam spam", "größe spam".encode(), b"it ends with <|end|> as text"]
    result = tokenizer_bits_per_byte(model, tokenizer, documents, Scoring(window=8, stride=4))
    expected = 0.0
    for document in documents:
        ids = tokenizer(document.decode(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert tokenizer.eos_token_id not in ids
        expected += brute_force_bits(model, [tokenizer.bos_token_id], ids, 8, 4)
    assert result.bits_per_byte == pytest.approx(expected / sum(map(len, documents)), abs=1e-4)
    assert result.n_symbols < result.n_bytes


@pytest.mark.parametrize(
    ("normalizer", "document", "message"),
    [(None, b"\xff", "document 1 is not UTF-8"), (normalizers.Lowercase(), b"Spam", "changes document 1")],
)
def test_text_that_a_tokenizer_cannot_spell_has_no_figure(token_llama, normalizer, document, message):
    model, tokenizer = token_llama
    tokenizer = copy.deepcopy(tokenizer)
    if normalizer is not None:
        tokenizer.backend_tokenizer.normalizer = normalizer
    with pytest.raises(ProxyByteError, match=message):
        tokenizer_bits_per_byte(model, tokenizer, [b"spam", document])


def test_baselines_count_whole_files():
    documents = [b"spam " * 100, b"", b"eggs"]
    coded = sum(len(gzip.compress(document, 9, mtime=0)) for document in documents if document)
    assert gzip_bits_per_byte(documents).bits_per_byte == pytest.approx(8 * coded / 504)
    assert gzip_bits_per_byte(documents).bits_per_byte < xz_bits_per_byte(documents).bits_per_byte < 8
    assert uniform_bits_per_byte(documents).bits_per_byte == pytest.approx(math.log2(320))


@pytest.mark.parametrize("score", [gzip_bits_per_byte, xz_bits_per_byte, uniform_bits_per_byte])
def test_nothing_to_score_is_said(score, byte_llama):
    with pytest.raises(ProxyByteError, match="no byte to score"):
        score([b""])
    with pytest.raises(ProxyByteError, match="no byte to score"):
        bits_per_byte(byte_llama, [b"", b""])
