"""What an instruct model learnt, added to a byte model of its base."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte import ProxyByteForCausalLM
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, Special
from proxybyte.training.byteify import byteify
from proxybyte.training.byteify.graft import graft

FAMILIES = ["llama", "llama-tied", "qwen3", "gpt2"]


@pytest.fixture
def pair(make_base, tmp_path, request):
    """A base, and the same with every weight moved: what tuning leaves."""
    family = getattr(request, "param", "llama-tied")
    base = make_base(family, "byte-level", dtype=torch.float64)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.05)
    instruct = tmp_path / "instruct"
    model.save_pretrained(instruct)
    AutoTokenizer.from_pretrained(base).save_pretrained(instruct)
    return base, instruct


@pytest.mark.parametrize("pair", FAMILIES, indirect=True)
def test_an_untrained_byte_model_becomes_the_instruct_model_through_tokens(pair, tmp_path):
    base, instruct = pair
    byteify(str(base), tmp_path / "bytes")
    graft(str(tmp_path / "bytes"), str(base), str(instruct), tmp_path / "out")
    own = ProxyByteForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64).eval()
    theirs = AutoModelForCausalLM.from_pretrained(instruct, dtype=torch.float64).eval()
    tokens = torch.tensor([[7, 30, 41, 12, 99]])
    with torch.no_grad():
        expected = theirs(tokens).logits
        found = own(tokens + COMPRESSED_OFFSET).logits[..., COMPRESSED_OFFSET:]
    # The difference is added in float32.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    byteify(str(instruct), tmp_path / "right")
    right = ProxyByteForCausalLM.from_pretrained(tmp_path / "right", dtype=torch.float64)
    rows, wanted = own.get_input_embeddings().weight, right.get_input_embeddings().weight
    for special in (Special.RAW_OPEN, Special.EOS, Special.END_OF_TURN):
        torch.testing.assert_close(rows[special], wanted[special], rtol=0, atol=1e-6)


def test_the_bytes_rows_and_what_was_trained_stay(pair, tmp_path):
    base, instruct = pair
    byteify(str(base), tmp_path / "bytes")
    model = ProxyByteForCausalLM.from_pretrained(tmp_path / "bytes", dtype=torch.float64)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    model.save_pretrained(tmp_path / "bytes")
    (tmp_path / "bytes" / "SHA256SUMS").unlink()
    graft(str(tmp_path / "bytes"), str(base), str(instruct), tmp_path / "out", scale=0.5)
    own = ProxyByteForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64)
    embeddings = (one.get_input_embeddings().weight[BYTE_OFFSET:COMPRESSED_OFFSET] for one in (own, model))
    assert torch.equal(*embeddings)
    name = "layers.1.mlp.up_proj.weight"
    before, after = (
        AutoModelForCausalLM.from_pretrained(one, dtype=torch.float64).model.get_parameter(name) for one in pair
    )
    expected = model.model.get_parameter(name) + 0.5 * (after - before)
    torch.testing.assert_close(own.model.get_parameter(name), expected, rtol=0, atol=1e-6)


def test_models_that_do_not_fit_are_refused_by_name(pair, make_base, tmp_path):
    base, _ = pair
    byteify(str(base), tmp_path / "bytes")
    other = make_base("llama", "gemma-pieces")
    with pytest.raises(ProxyByteError, match="its tokenizer is not that of the base"):
        graft(str(tmp_path / "bytes"), str(base), str(other), tmp_path / "out")
    with pytest.raises(ProxyByteError, match="it was made of another base"):
        graft(str(tmp_path / "bytes"), str(other), str(other), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_model_with_the_chat_template(pair, tmp_path, capsys):
    base, instruct = pair
    byteify(str(base), tmp_path / "bytes")
    words = ["--base", str(base), "--instruct", str(instruct), "--out", str(tmp_path / "out")]
    assert main(["adapter", "graft", str(tmp_path / "bytes"), *words]) == 0
    printed = capsys.readouterr().out
    assert "next: proxybyte export" in printed
    assert (tmp_path / "out/compressor/compressor.json").is_file()
    assert main(["adapter", "graft", "absent", *words]) == 2
