"""Transformers' own ways to decode faster, with this model: another model or the prompt drafts, a static cache."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

from proxybyte import EvaConfig, ProxyByteConfig, ProxyByteForCausalLM

NEW = 24


@pytest.fixture
def backbone(tiny_model):
    """A model of one kind, with a window that the text passes."""

    def make(kind: str) -> ProxyByteForCausalLM:
        if kind != "proxybyte_eva":
            return tiny_model(kind)
        torch.manual_seed(0)
        shapes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        eva = EvaConfig(**shapes, window_size=16, chunk_size=4, cache_rollback=32, vocab_size=360)
        model = ProxyByteForCausalLM(ProxyByteConfig(backbone_config=eva, num_compressed_symbols=40)).double().eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=0.3)
        return model

    return make


KINDS = pytest.mark.parametrize("kind", ["llama", "qwen3", "proxybyte_eva"])
PROMPT = torch.tensor([[12, *[70, 80, 90, 100] * 4, 70, 80]])


@KINDS
@pytest.mark.parametrize("sampled", [False, True])
def test_an_assistant_model_changes_nothing(backbone, kind, sampled):
    """The assistant is the model with a little noise, so that some drafts are right and some are not."""
    model, assistant = backbone(kind), backbone(kind)
    with torch.no_grad():
        assistant.lm_head.weight += 0.2 * torch.randn_like(assistant.lm_head.weight)
    how = {"do_sample": True, "top_k": 1} if sampled else {}
    expected = model.generate(PROMPT, max_new_tokens=NEW, **how)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=NEW, assistant_model=assistant, **how), expected)


@KINDS
def test_prompt_lookup_changes_nothing(backbone, kind):
    model = backbone(kind)
    expected = model.generate(PROMPT, max_new_tokens=NEW)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=NEW, prompt_lookup_num_tokens=5), expected)


@KINDS
@pytest.mark.parametrize("padded_prompts", [False, True])
def test_a_static_cache_writes_what_a_dynamic_one_does(backbone, padded, kind, padded_prompts):
    model = backbone(kind)
    prompts = padded() if padded_prompts else {"input_ids": PROMPT}
    expected = model.generate(**prompts, max_new_tokens=NEW)
    assert torch.equal(model.generate(**prompts, max_new_tokens=NEW, cache_implementation="static"), expected)


def test_a_static_cache_of_several_layer_types_gives_the_logits_of_a_dynamic_one(tiny_config):
    """Its masks come as one for each layer type."""
    config = tiny_config("qwen3")
    backbone = config.backbone_config
    backbone.use_sliding_window, backbone.sliding_window = True, 6
    backbone.layer_types = ["sliding_attention", "full_attention"]
    torch.manual_seed(0)
    model = ProxyByteForCausalLM(config).double().eval()
    outputs = []
    for implementation in (None, "static"):
        outputs.append(
            model.generate(
                PROMPT,
                max_new_tokens=8,
                eos_token_id=None,
                cache_implementation=implementation,
                output_logits=True,
                return_dict_in_generate=True,
            )
        )
    assert isinstance(outputs[0].past_key_values, DynamicCache) and isinstance(outputs[1].past_key_values, StaticCache)
    torch.testing.assert_close(torch.stack(outputs[1].logits), torch.stack(outputs[0].logits), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_compiled_decoding_with_a_static_cache_writes_what_plain_decoding_does(backbone):
    """``torch.compile`` of the forward pass with one graph for all steps."""
    torch.compiler.reset()
    model = backbone("llama").float()
    expected = model.generate(PROMPT, max_new_tokens=NEW)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return torch._inductor.compile(graph, inputs)

    model.forward = torch.compile(model.forward, backend=count, fullgraph=True, dynamic=False)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=NEW, cache_implementation="static"), expected)
    assert len(graphs) <= 2, "the prompt and all steps"
    torch.compiler.reset()
