"""Small models of the two architectures that the suite runs."""

from collections.abc import Callable

import pytest
import torch

SHAPES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}


@pytest.fixture
def tiny_config() -> Callable:
    """Makes a configuration; the keywords are those of ``ProxyByteConfig``."""
    from proxybyte import ProxyByteConfig

    def make(kind: str = "llama", num_compressed_symbols: int = 40, **settings):
        return ProxyByteConfig(
            backbone_config={"model_type": kind, **SHAPES}, num_compressed_symbols=num_compressed_symbols, **settings
        )

    return make


@pytest.fixture
def tiny_model(tiny_config) -> Callable:
    """Makes a model in float64, in evaluation mode, with weights large enough that every symbol matters."""
    from proxybyte import ProxyByteForCausalLM

    def make(kind: str = "llama", **settings) -> ProxyByteForCausalLM:
        torch.manual_seed(0)
        model = ProxyByteForCausalLM(tiny_config(kind, **settings)).double().eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=0.3)
        return model

    return make
