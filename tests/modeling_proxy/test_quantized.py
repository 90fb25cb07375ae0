"""Weights in 8 and 4 bits through Transformers' own quantizers, where the platform has them."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM

pytest.importorskip("bitsandbytes")
PROMPT = torch.tensor([[12, *range(70, 100)]])


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.05), (4, 0.5)])
def test_quantized_weights_give_nearly_the_logits_and_the_same_text_with_and_without_drafts(tmp_path, bits, tolerance):
    torch.manual_seed(0)
    # Four-bit blocks hold 64 weights.
    backbone = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    backbone |= {"num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.1}
    config = ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=40, num_raw_pred_heads=3)
    plain = ProxyByteForCausalLM(config).eval()
    plain.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0)
    plain.save_pretrained(tmp_path)
    asked = BitsAndBytesConfig(load_in_8bit=True) if bits == 8 else BitsAndBytesConfig(load_in_4bit=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=asked, dtype=torch.float32)
    assert type(model.model.layers[0].mlp.up_proj).__module__.startswith("bitsandbytes")
    with torch.inference_mode():
        expected, found = (one(PROMPT).logits.float() for one in (plain, model))
    assert 0 < (found - expected).norm() / expected.norm() < tolerance
    written = model.generate(PROMPT, max_new_tokens=16)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=16, draft="heads"), written)
