"""Fast scoring against a brute-force reading of the definition: one window at a time, full logits, float64."""

import copy
import gzip
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from proxybyte.errors import ProxyByteError
from proxybyte.eval import (
    Scoring,
    bits_per_byte,
    compressed_bits_per_byte,
    gzip_bits_per_byte,
    tokenizer_bits_per_byte,
    uniform_bits_per_byte,
    xz_bits_per_byte,
)

DOCUMENTS = [b"", b"a", b"def f(x):\n    return x\n", "naïve — 数".encode(), bytes(range(256)), b"spam and eggs " * 30]


def brute_force_bits(model, prefix: list[int], symbols: list[int], window: int, stride: int) -> float:
    """Bits of one sequence, window by window: the definition in docs/evaluation.md, spelled out."""
    model = copy.deepcopy(model).double()
    bits, done, start = 0.0, 0, 0
    while done < len(symbols):
        piece = symbols[start : start + window]
        with torch.no_grad():
            logits = model(torch.tensor([prefix + piece])).logits[0]
        log_p = torch.log_softmax(logits, dim=-1)
        for offset in range(done - start, len(piece)):
            bits -= float(log_p[len(prefix) + offset - 1, piece[offset]]) / math.log(2)
        done = start + len(piece)
        start += stride
    return bits


def raw_symbols(document: bytes) -> list[int]:
    return [64 + byte for byte in document]


@pytest.mark.parametrize(("window", "stride"), [(None, None), (64, 16), (64, 64), (7, 3), (1, 1)])
def test_fast_equals_brute_force_for_each_document(byte_llama, window, stride):
    result = bits_per_byte(byte_llama, DOCUMENTS, Scoring(window=window, stride=stride, batch_positions=300))
    window, stride = (window, stride) if window else (95, 47)
    for document, bits in zip(DOCUMENTS, result.document_bits, strict=True):
        expected = brute_force_bits(byte_llama, [12], raw_symbols(document), window, stride)
        assert bits == pytest.approx(expected, abs=1e-4 * max(1, len(document)))
    assert result.bits_per_byte == pytest.approx(result.bits / sum(map(len, DOCUMENTS)))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5).filter(any), st.integers(1, 400))
def test_batches_do_not_change_the_figure(byte_llama, documents, positions):
    together = bits_per_byte(byte_llama, documents, Scoring(batch_positions=positions))
    for document, bits in zip(documents, together.document_bits, strict=True):
        alone = bits_per_byte(byte_llama, [document]).bits if document else 0.0
        assert bits == pytest.approx(alone, abs=1e-4 * max(1, len(document)))


def test_bos_before_the_sentinel_where_the_model_was_trained_so(byte_llama):
    model = copy.deepcopy(byte_llama)
    model.config.document_prefix = True
    result = bits_per_byte(model, [b"abc"])
    assert result.bits == pytest.approx(brute_force_bits(model, [1, 12], raw_symbols(b"abc"), 90, 90), abs=1e-3)


def test_a_model_in_training_is_scored_without_dropout_and_put_back(byte_llama):
    model = copy.deepcopy(byte_llama)
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    model.train()
    assert bits_per_byte(model, [b"abcdef"]).bits == bits_per_byte(byte_llama, [b"abcdef"]).bits
    assert model.training


def test_half_precision_weights_are_summed_in_full(byte_llama):
    model = copy.deepcopy(byte_llama).bfloat16()
    exact = bits_per_byte(byte_llama, DOCUMENTS).bits_per_byte
    assert bits_per_byte(model, DOCUMENTS).bits_per_byte == pytest.approx(exact, rel=0.02)


def test_compressed_view_is_per_byte_of_text():
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=320 + 50, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    codes = [np.array([0, 49, 7, 7], dtype=np.uint16), np.array([], dtype=np.uint16), np.arange(40, dtype=np.uint16)]
    result = compressed_bits_per_byte(model, codes, [11, 0, 150], Scoring(window=16, stride=8))
    expected = sum(brute_force_bits(model, [14], [320 + int(c) for c in code], 16, 8) for code in codes)
    assert result.bits_per_byte == pytest.approx(expected / 161, abs=1e-4)
    assert result.n_symbols == 44


def test_codes_of_another_compressor_are_refused(byte_llama):
    with pytest.raises(ProxyByteError, match="code 3 but the model has rows for 0"):
        compressed_bits_per_byte(byte_llama, [np.array([1, 3])], [5])


def word_tokenizer(normalizer=None) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a handful of merges: what a tokenizer model reads."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate([*alphabet, "sp", "spam", "am", "<|end|>"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("s", "p"), ("a", "m"), ("sp", "am")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>")


def token_llama(vocab_size: int) -> LlamaForCausalLM:
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaForCausalLM(config).eval()


def test_tokenizer_model_is_per_byte_of_text():
    tokenizer = word_tokenizer()
    model = token_llama(len(tokenizer))
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
    ("tokenizer", "document", "message"),
    [
        (word_tokenizer(), b"\xff", "document 1 is not UTF-8"),
        (word_tokenizer(normalizers.Lowercase()), b"Spam", "changes document 1"),
    ],
)
def test_text_that_a_tokenizer_cannot_spell_has_no_figure(tokenizer, document, message):
    with pytest.raises(ProxyByteError, match=message):
        tokenizer_bits_per_byte(token_llama(len(tokenizer)), tokenizer, [b"spam", document])


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
