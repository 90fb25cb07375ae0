import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture(scope="session")
def byte_llama() -> LlamaForCausalLM:
    """A plain Llama over 320 symbols, as a native export is, with opinions: weights far from their quiet start."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=12,
        eos_token_id=[13, 2],
    )
    return LlamaForCausalLM(config).eval()
