import pytest
import torch

from proxybyte import ProxyByteError, ProxyByteForCausalLM
from proxybyte.hub_configs import load_preset, preset_names

SIXTEEN_BITS = 65_536
# Published shapes: hidden size, layers, heads, MLP, peak learning rate; and parameters beside embedding and head,
# by hand: layers x (4 hidden^2 + 3 hidden MLP + 2 hidden) + hidden; EVA has two more vectors of that width a layer.
PUBLISHED = {
    "500m-llama": (1024, 28, 8, 4096, 1.2e-3, 469_820_416),
    "1.5b-llama": (2048, 20, 16, 8192, 9e-4, 1_342_261_248),
    "4b-llama": (3072, 32, 24, 9216, 7e-4, 3_926_068_224),
    "7b-llama": (4096, 32, 32, 12288, 5e-4, 6_979_588_096),
    "14b-llama": (5120, 40, 40, 16384, 5e-4, 14_261_048_320),
    "500m-eva": (1024, 28, 8, 4096, 1.2e-3, 469_877_760),
    "1.5b-eva": (2048, 20, 16, 8192, 9e-4, 1_342_343_168),
    "4b-eva": (3072, 32, 24, 9216, 7e-4, 3_926_264_832),
    "7b-eva": (4096, 32, 32, 12288, 5e-4, 6_979_850_240),
    "14b-eva": (5120, 40, 40, 16384, 5e-4, 14_261_457_920),
}
OWN = {
    "tiny-llama": 853_120,
    "tiny-qwen3": 787_840,
    "small-llama": 9_917_760,
    "100m-llama": 99_109_632,
    "tiny-eva": 854_144,
    "small-eva": 9_922_880,
    "100m-eva": 99_128_064,
}


def inner_parameters(name: str) -> int:
    """Parameters beside the embedding and the head, of a model without storage."""
    with torch.device("meta"):
        model = ProxyByteForCausalLM(load_preset(name).config(SIXTEEN_BITS))
    weights = {id(w): w.numel() for w in (model.lm_head.weight, model.get_input_embeddings().weight)}
    assert model.lm_head.weight.shape[0] == 65_856
    return model.num_parameters() - sum(weights.values())


def test_every_preset_is_tested():
    assert set(preset_names()) == set(PUBLISHED) | set(OWN)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_sizes_are_as_published(name):
    preset = load_preset(name)
    hidden, layers, heads, mlp, rate, parameters = PUBLISHED[name]
    config = preset.config(SIXTEEN_BITS)
    shape = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size)
    assert shape == (hidden, layers, heads, mlp)
    vectors = 2
    if name.endswith("-eva"):
        assert (config.backbone_config.window_size, config.backbone_config.chunk_size) == (2048, 8)
        vectors = 4
    assert parameters == layers * (4 * hidden**2 + 3 * hidden * mlp + vectors * hidden) + hidden
    assert inner_parameters(name) == parameters
    # 500 steps of warm-up out of 50,000.
    assert preset.training == {
        "optimizer": {"lr": rate, "betas": [0.9, 0.95], "weight_decay": 0.1, "clip": 1.0},
        "learning_rate": {"shape": "cosine", "warmup": 0.01, "final": 0.1},
    }


@pytest.mark.parametrize("name", sorted(OWN))
def test_small_sizes_have_the_parameters_they_say(name):
    assert inner_parameters(name) == OWN[name]


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(ProxyByteError, match="did you mean 'tiny-llama'"):
        load_preset("tiny-lama")
    with pytest.raises(ProxyByteError, match=r"choose one of 1\.5b-eva, 1\.5b-llama"):
        load_preset("#")
