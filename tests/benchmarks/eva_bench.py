"""EVA attention beside full causal attention in training, and what a byte costs to decode as the context grows.

Training: one decoder layer forward and backward over one row, in CPU seconds of one core. The baseline is
Transformers' Llama layer of the same shapes with PyTorch's fused causal attention. Decoding: one layer in the shape of
the 7B preset, whose cache was filled to 4,096 or 32,768 positions with random keys and values; both contexts take
turns, byte by byte, so that whatever else the machine does hits both.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from figures import Figure, one_core
from tqdm import tqdm
from transformers import DynamicCache, LlamaConfig, LlamaModel

from proxybyte import EvaConfig, EvaModel
from proxybyte.eva_attention import EvaSpec, KeysValues, Landmarks, summarize
from proxybyte.hub_configs import load_preset

SHAPES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 320,
}
CONTEXTS = (4096, 32_768)
BYTES = 24


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``eva_vs_full_16k_speedup``, ``eva_vs_full_32k_speedup`` and ``eva_decode_flatness_4k_32k``."""
    with one_core():
        yield _training_row(16_384)
        yield _training_row(32_768)
        yield _decoding_row()


def _training_row(length: int) -> Figure:
    eva = EvaModel(EvaConfig(**SHAPES))
    full = LlamaModel(LlamaConfig(**SHAPES))
    ours = min(_step_seconds(eva, length) for _ in range(2))
    baseline = _step_seconds(full, length)
    return {
        "name": f"eva_vs_full_{length // 1024}k_speedup",
        "value": length / ours,
        "unit": f"symbols/s, forward + backward of one layer of width 128, one row of {length} symbols, one core; "
        "baseline: fused causal attention",
        "baseline": length / baseline,
        "ratio": baseline / ours,
    }


def _step_seconds(model: torch.nn.Module, length: int) -> float:
    hidden = torch.randn(1, length, SHAPES["hidden_size"], requires_grad=True)
    start = time.process_time()
    model(inputs_embeds=hidden, use_cache=False).last_hidden_state.sum().backward()
    return time.process_time() - start


@torch.inference_mode()
def _decoding_row() -> Figure:
    settings = load_preset("7b-eva").backbone_config
    config = EvaConfig(**{**settings, "num_hidden_layers": 1, "vocab_size": 320})
    model = EvaModel(config).eval()
    caches = {context: _filled_cache(config, context) for context in CONTEXTS}
    seconds: dict[int, list[float]] = {context: [] for context in CONTEXTS}
    for _ in tqdm(range(BYTES), desc="decoding", leave=False):
        for context in CONTEXTS:
            symbol = torch.randint(64, 320, (1, 1))
            start = time.process_time()
            model(symbol, past_key_values=caches[context])
            seconds[context].append(time.process_time() - start)
    short, long = (statistics.median(seconds[context][2:]) * 1e3 for context in CONTEXTS)
    return {
        "name": "eva_decode_flatness_4k_32k",
        "value": long,
        "unit": "ms per byte with 32,768 symbols before it, one layer of the 7B preset, float32, one core; "
        "baseline: with 4,096",
        "baseline": short,
        "ratio": long / short,
    }


def _filled_cache(config: EvaConfig, context: int) -> DynamicCache:
    """A cache of ``context`` positions with random keys and values, a window at a time."""
    spec = EvaSpec(config.window_size, config.chunk_size, config.cache_rollback)
    landmarks = Landmarks(*torch.randn(2, config.num_attention_heads, config.head_dim))
    cache = DynamicCache(config=config)
    layer: Any = cache.layers[0]
    while layer.seen < context:
        keys = torch.randn(1, config.num_attention_heads, config.window_size, config.head_dim)
        for step in layer.plan(spec, layer.lengths or (0,), (config.window_size,), config.window_size):
            first = layer.seen % config.window_size
            part = keys[:, :, first : first + step.columns]
            summaries = summarize(KeysValues(part, part), landmarks, spec.chunk) if not step.visible else None
            layer.update(part, part, step, landmarks, summaries)
    return cache
