"""Through the compressed view a byteified model is its base."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte import ProxyByteForCausalLM
from proxybyte.symbols import COMPRESSED_OFFSET, Special
from proxybyte.training.byteify import ByteifyOptions, RowScheme, byteify
from proxybyte.training.compressors import encode_one, load_compressor

TEXT = "def quick(fox):\n\treturn [fox, 'naïve 東京'] * 2  # it's\n" * 2
FAMILIES = ["llama", "llama-tied", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text", "gpt2"]


def tokens_and_logits(base, folder):
    """Token ids of the text by the folder's compressor, after the base's own beginning, and the base's logits."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    codes = encode_one(load_compressor(folder), TEXT.encode()).tolist()
    assert codes == tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[tokenizer.bos_token_id, *codes]])
    with torch.no_grad():
        return ids, AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)(ids).logits


def check_exact(base, folder):
    ids, expected = tokens_and_logits(base, folder)
    model = ProxyByteForCausalLM.from_pretrained(folder)
    assert model.dtype is torch.float64
    assert model.config.vocab_size == COMPRESSED_OFFSET + expected.shape[-1]
    symbols = ids + COMPRESSED_OFFSET
    with torch.no_grad():
        same = model(symbols).logits[..., COMPRESSED_OFFSET:]
        symbols[0, 0] = Special.COMPRESSED_OPEN
        opened = model(symbols).logits[..., COMPRESSED_OFFSET:]
    torch.testing.assert_close(same, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(opened, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_compressed_view_has_the_logits_of_the_base(make_base, tmp_path, family):
    base = make_base(family)
    report = byteify(str(base), tmp_path / "out")
    assert report["largest_logit_difference"] < 1e-12
    # Qwen2's own tokenizer class adds a token of its own.
    assert report["padding_rows"] == (4 if family == "qwen2" else 5)
    # Qwen2's tokenizer composes characters; that is said, not refused.
    assert report["decomposed_text_stays_raw"] is (family == "qwen2")
    check_exact(base, tmp_path / "out")


@pytest.mark.parametrize(("family", "pieces"), [("llama", "llama-pieces"), ("gemma2", "gemma-pieces")])
def test_sentencepiece_with_byte_fallback_is_exact_too(make_base, tmp_path, family, pieces):
    base = make_base(family, pieces)
    byteify(str(base), tmp_path / "out")
    check_exact(base, tmp_path / "out")


@pytest.mark.parametrize("scheme", list(RowScheme))
@pytest.mark.parametrize("family", ["llama", "llama-tied"])
def test_no_scheme_of_rows_touches_the_compressed_view(make_base, tmp_path, family, scheme):
    base = make_base(family)
    byteify(str(base), tmp_path / "out", ByteifyOptions(rows=scheme, head_rows=RowScheme.BEGINS))
    check_exact(base, tmp_path / "out")


def test_tying_is_kept(make_base, tmp_path):
    for family, tied in (("llama", False), ("llama-tied", True)):
        byteify(str(make_base(family)), tmp_path / family)
        model = ProxyByteForCausalLM.from_pretrained(tmp_path / family)
        assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied


def test_a_vocabulary_without_padding_rows_is_exact(make_base, tmp_path):
    base = make_base("llama", padding=0)
    byteify(str(base), tmp_path / "out")
    check_exact(base, tmp_path / "out")


def test_other_weights_are_those_of_the_base_to_the_bit(make_base, tmp_path):
    base = make_base("qwen3", dtype=torch.float32)
    byteify(str(base), tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict()
    ours = ProxyByteForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name][-len(weight) :], weight), name
