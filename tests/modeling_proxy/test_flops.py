import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.flops import mean_eva_keys, mean_keys, symbol_flops, training_flops

LENGTH = 16


def counted(config: ProxyByteConfig, *, backward: bool, **settings) -> float:
    """What PyTorch counts for one row: eager attention computes all keys, causal or not."""
    config._attn_implementation = "eager"
    model = ProxyByteForCausalLM(config)
    symbols = torch.randint(64, 320, (1, LENGTH))
    with FlopCounterMode(display=False) as counter:
        logits = model(symbols, **settings).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


def counted_training(config: ProxyByteConfig, **loss: bool) -> float:
    """What PyTorch counts for forward and backward of the loss of one row."""
    config._attn_implementation = "eager"
    model = ProxyByteForCausalLM(config)
    symbols = torch.randint(64, 320, (1, LENGTH))
    # A product that is added in place is one that PyTorch's own table leaves out.
    in_place = {torch.ops.aten.addmm_: lambda total, left, right, **_: 2 * left[0] * left[1] * right[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        model(symbols, labels=symbols, **loss).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_formula_is_what_pytorch_counts(tiny_config, kind, tied):
    config = tiny_config(kind, tie_word_embeddings=tied)
    causal = symbol_flops(config, LENGTH)
    everything = causal.weights + causal.attention * LENGTH / mean_keys(LENGTH)
    assert counted(config, backward=False) == LENGTH * everything
    assert counted(config, backward=True) == 3 * LENGTH * everything


@pytest.mark.parametrize(("heads", "raw_heads"), [(1, 0), (3, 0), (1, 2), (4, 2)])
def test_heads_count_in_training_and_their_raw_rows_in_drafting(tiny_config, heads, raw_heads):
    config = tiny_config(num_pred_heads=heads, num_raw_pred_heads=raw_heads)
    flops = symbol_flops(config, LENGTH)
    rest_of_the_keys = flops.attention * (LENGTH / mean_keys(LENGTH) - 1)
    assert counted_training(config) == LENGTH * (flops.training + 3 * rest_of_the_keys)
    assert counted(config, backward=False) == LENGTH * (flops.forward + rest_of_the_keys)
    if heads + raw_heads > 1:
        drafted = counted(config, backward=False, return_head_logits=True)
        assert drafted == LENGTH * (flops.drafting + rest_of_the_keys)
    assert training_flops(config, LENGTH) == LENGTH * flops.training


def test_a_loss_over_raw_rows_alone_counts_those(tiny_config):
    config = tiny_config("llama")
    assert config.vocab_size > 320
    flops = symbol_flops(config, LENGTH, raw_rows_only=True)
    rest_of_the_keys = flops.attention * (LENGTH / mean_keys(LENGTH) - 1)
    again = 2 * 320 * config.hidden_size  # part of a head is computed once more in the backward pass
    found = counted_training(config, raw_targets_only=True)
    assert found == LENGTH * (flops.training + 3 * rest_of_the_keys + again)
    assert training_flops(config, LENGTH, raw_rows_only=True) < training_flops(config, LENGTH)


@pytest.mark.parametrize(("length", "window"), [(1, None), (9, None), (9, 4), (9, 1), (3, 50)])
def test_mean_keys_is_the_mean_over_queries(length, window):
    keys = [min(query + 1, window or length) for query in range(length)]
    assert mean_keys(length, window) == pytest.approx(sum(keys) / length)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 40])
def test_eva_counts_a_summary_as_a_key(length):
    keys = [query % 8 + 1 + query // 8 * 8 // 2 for query in range(length)]
    assert mean_eva_keys(length, 8, 2) == pytest.approx(sum(keys) / length)
    shapes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = ProxyByteConfig(
        backbone_config={"model_type": "proxybyte_eva", **shapes, "window_size": 8, "chunk_size": 2}
    )
    assert symbol_flops(config, length).attention == pytest.approx(3 * 4 * 32 * sum(keys) / length)


def test_windows_and_documents_shorten_attention(tiny_config):
    shapes = {
        "num_hidden_layers": 2,
        "layer_types": ["full_attention", "sliding_attention"],
        "sliding_window": 4,
        "use_sliding_window": True,
    }
    backbone = {"model_type": "qwen3", "hidden_size": 32, "num_attention_heads": 4, "head_dim": 8, **shapes}
    flops = symbol_flops(ProxyByteConfig(backbone_config=backbone), LENGTH)
    assert flops.attention == 4 * 4 * 8 * (mean_keys(LENGTH) + mean_keys(LENGTH, 4))
    config = tiny_config()
    short = training_flops(config, LENGTH, document_length=4)
    assert training_flops(config, LENGTH) - short == 3 * LENGTH * 2 * 4 * 4 * 8 * (mean_keys(LENGTH) - mean_keys(4))


def test_only_the_experts_that_a_symbol_visits_count():
    shapes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    backbone = {"model_type": "mixtral", "num_key_value_heads": 4, "num_local_experts": 8, **shapes}
    config = ProxyByteConfig(backbone_config={**backbone, "num_experts_per_tok": 2})
    attention, router, head = 4 * 32 * 32, 8 * 32, 320 * 32
    assert symbol_flops(config, 1).weights == 2 * (attention + router + 2 * 3 * 32 * 48 + head)
