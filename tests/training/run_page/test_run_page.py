"""The page about a run: its figures, and that what it colours is what the model says."""

import math
import re

import numpy as np
import pytest
import torch

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.eval import bits_per_byte, byte_bits
from proxybyte.training.run_page.findings import Figure, Findings, Sample, TwoViewsOfText
from proxybyte.training.run_page.html import page

SHAPE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
TEXT = "x < y & é 🙂\n".encode()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ProxyByteForCausalLM(ProxyByteConfig(backbone_config=dict(SHAPE), num_compressed_symbols=7)).eval()


def test_bits_of_bytes_are_those_of_one_prefix_after_another(model):
    """Each byte by a forward of its own over what stands before it, in float64."""
    symbols = [12, *(64 + byte for byte in TEXT)]
    alone = []
    for place in range(1, len(symbols)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([symbols[:place]]), use_cache=False).logits[0, -1, :320].double()
        alone.append(-(logits[symbols[place]] - logits.logsumexp(0)).item() / math.log(2))
    np.testing.assert_allclose(byte_bits(model, TEXT), alone, atol=1e-4)


def test_bits_of_bytes_add_up_to_the_document(model):
    assert byte_bits(model, TEXT).sum() == pytest.approx(bits_per_byte(model, [TEXT]).bits, abs=1e-3)


def test_a_text_beyond_the_context_is_refused(model):
    with pytest.raises(ProxyByteError, match="64 bytes exceeds the model's context of 63"):
        byte_bits(model, bytes(64))


def findings(tmp_path, text: bytes, ends) -> Findings:
    views = TwoViewsOfText(
        text, np.arange(len(text), dtype=float), None if ends is None else np.array(ends), "bpe-9", 3
    )
    sample = Sample(b"a<b", b"&c", b"&d", 0.5, 4)
    return Findings(tmp_path / "run<1>", 12, 2, 34, (Figure("this model", 1.5), Figure("gzip", 3.0)), sample, views)


def visible(page_text: str) -> str:
    return re.sub(r"<[^>]*>", "", page_text)


def test_both_views_show_the_whole_text_and_nothing_is_markup(tmp_path):
    shown = page(findings(tmp_path, TEXT, [2, 2, 5, len(TEXT)]), None)
    escaped = "x &lt; y &amp; é 🙂\n"
    assert visible(shown).count(escaped) == 2
    assert "run&lt;1&gt;" in shown
    assert shown.count('class="a"') == 2 and shown.count('class="b"') == 1, "a symbol that ends no byte has no span"


def test_a_character_costs_what_its_bytes_cost_together(tmp_path):
    """Bytes cost 0, 1, 2, ... bits here: é is bytes 8 and 9, the smile bytes 11 to 14."""
    shown = page(findings(tmp_path, TEXT, None), None)
    assert 'title="17.0 bits: c3 8.0, a9 9.0">é' in shown
    assert 'title="50.0 bits: f0 11.0, 9f 12.0, 99 13.0, 82 14.0">🙂' in shown


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path):
    assert "\ufffd" in page(findings(tmp_path, b"a\xff\xe2\x82", None), None)
