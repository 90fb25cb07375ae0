import pytest
import torch

from proxybyte import ProxyByteForCausalLM
from proxybyte.training.run.adapters import Adapter, write_merged
from proxybyte.training.run.config import AdapterConfig

peft = pytest.importorskip("peft")
SYMBOLS = torch.randint(64, 320, (2, 12), generator=torch.Generator().manual_seed(2))


def adapted(model: ProxyByteForCausalLM, targets: list[str] | str, **settings) -> "peft.PeftModel":
    """``model`` under a LoRA adapter that changes what it computes."""
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=targets, **settings)
    )
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.1)
    return wrapped


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_merging_an_adapter_of_the_decoder_keeps_logits_and_ties(tiny_model, kind, tied):
    wrapped = adapted(tiny_model(kind, tie_word_embeddings=tied), "all-linear")
    expected = wrapped(SYMBOLS).logits
    assert (expected - tiny_model(kind, tie_word_embeddings=tied)(SYMBOLS).logits).abs().max() > 1e-3
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(merged(SYMBOLS).logits, expected, rtol=0, atol=1e-9)
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) is tied


def test_merging_trained_tied_embeddings_keeps_ties(tiny_model, tmp_path):
    """docs/model.md says why the embedding is trained in full rather than by LoRA."""
    wrapped = adapted(
        tiny_model(tie_word_embeddings=True), ["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True
    )
    with torch.no_grad():
        wrapped.get_input_embeddings().weight.mul_(1.5)
    expected = wrapped(SYMBOLS).logits
    merged = wrapped.merge_and_unload()
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    torch.testing.assert_close(merged(SYMBOLS).logits, expected, rtol=0, atol=1e-9)
    merged.save_pretrained(tmp_path)
    loaded = ProxyByteForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    torch.testing.assert_close(loaded(SYMBOLS).logits, expected, rtol=0, atol=1e-9)


def test_an_adapter_of_the_head_counts_in_the_loss(tiny_model):
    """The fast paths read the head's weight alone, so an adapted head must not take them."""
    wrapped = adapted(tiny_model(loss_chunk_size=5), ["lm_head"])
    output = wrapped(SYMBOLS, labels=SYMBOLS)
    logits = wrapped(SYMBOLS).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), SYMBOLS[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected, rtol=0, atol=1e-10)
    ours = torch.autograd.grad(output.loss, [p for p in wrapped.parameters() if p.requires_grad])
    theirs = torch.autograd.grad(expected, [p for p in wrapped.parameters() if p.requires_grad])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    raw = wrapped(SYMBOLS, raw_symbols_only=True).logits
    torch.testing.assert_close(raw[..., :320], logits[..., :320], rtol=0, atol=1e-12)


def test_an_adapted_model_generates_raw_text_alone(tiny_model):
    wrapped = adapted(tiny_model(), ["q_proj", "lm_head"])
    new = wrapped.generate(input_ids=torch.tensor([[12, 70, 80]]), max_new_tokens=10)[0, 3:].tolist()
    assert set(new) <= set(range(64, 320)) | {0, 2, 13}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    ("targets", "rows"),
    [
        (["q_proj", "embed_tokens"], None),
        (["q_proj", "lm_head"], None),
        (["embed_tokens", "lm_head"], None),
        (["q_proj"], {"modules_to_save": ["embed_tokens"]}),
        (["q_proj"], {"modules_to_save": ["lm_head"]}),
        (["q_proj"], {"trainable_token_indices": {"embed_tokens": [70, 71]}}),
        (["q_proj"], "all"),
        (["q_proj"], "raw"),
    ],
    ids=str,
)
def test_what_is_merged_is_base_and_adapter_also_when_it_is_read_back(tiny_model, tmp_path, tied, targets, rows):
    """PEFT's own forward pass under the adapter says what is right; float64 from end to end."""
    base = tiny_model(tie_word_embeddings=tied)
    base.save_pretrained(tmp_path / "base")
    before = base(SYMBOLS).logits.detach()
    if isinstance(rows, str):
        wrapped = Adapter.attach(base, AdapterConfig(targets=targets, rows=rows, rank=2), seed=1).peft
    else:
        wrapped = adapted(base, targets, **(rows or {}))
    wrapped = wrapped.double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        expected = wrapped(SYMBOLS).logits
    assert (expected - before).abs().max() > 1e-2
    wrapped.save_pretrained(tmp_path / "adapter")
    write_merged(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    merged = ProxyByteForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.dtype == torch.float64
    torch.testing.assert_close(merged(SYMBOLS).logits, expected, rtol=0, atol=1e-9)
