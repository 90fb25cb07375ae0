"""Small models with sharp random weights, as folders and as exports."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.tokenization_proxybyte import build_tokenizer, save_tokenizer

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
FAMILY_SETTINGS = {
    "gemma2": {"final_logit_softcapping": None},
    "mixtral": {"num_local_experts": 2},
    "phi3": {"original_max_position_embeddings": 256},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}


def write_model(
    folder: Path, family: str, change: Callable | None = None, backbone_settings: dict | None = None, **settings
) -> ProxyByteForCausalLM:
    """Build a model, let ``change`` alter it, and save it with its tokenizer."""
    torch.manual_seed(0)
    backbone = {"model_type": family, **SHAPE, **FAMILY_SETTINGS.get(family, {}), **(backbone_settings or {})}
    config = ProxyByteConfig(backbone_config=backbone, **{"num_compressed_symbols": 50, **settings})
    model = ProxyByteForCausalLM(config).eval()
    if change is not None:
        change(model)
    model.save_pretrained(folder)
    save_tokenizer(build_tokenizer(opening=config.document_opening), folder)
    return model


@pytest.fixture(scope="session")
def model_writer() -> Callable[..., ProxyByteForCausalLM]:
    """:func:`write_model`, which tests cannot import."""
    return write_model


@pytest.fixture(scope="session")
def llama_run(tmp_path_factory) -> Path:
    """A finished run: its model and the compressor beside it."""
    run = tmp_path_factory.mktemp("run")
    write_model(run / "model", "llama")
    (run / "compressor").mkdir()
    (run / "compressor" / "compressor.json").write_text('{"family": "bpe"}')
    return run


@pytest.fixture(scope="session", params=list(ExportFormat))
def exported(request, llama_run, tmp_path_factory) -> Path:
    """The run's export in each format."""
    out = tmp_path_factory.mktemp("hub") / f"{request.param}-model"
    return export_model(llama_run, out, ExportOptions(request.param))
