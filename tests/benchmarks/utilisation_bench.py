"""Arithmetic of a training step beside the processor's own matrix products, in the precision that ``auto`` chooses.

The peak is that of square products, forward alone, the best of several sizes; CPU seconds of one core, one after the
other in the same process. What a step computes is counted by ``proxybyte.flops``; the optimizer's step is in its time.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from figures import Figure, fastest, one_core

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.flops import training_flops
from proxybyte.training.run.config import OptimizerConfig, Precision
from proxybyte.training.run.optim import make_adamw
from proxybyte.training.run.precision import autocast, settle_precision

CODES, ROW_LENGTH, ROWS, LAYERS, REPEATS = 2048, 256, 8, 4, 4
WIDTHS = (128, 256, 512)
SIZES = (512, 1024, 2048)
CPU = torch.device("cpu")


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``utilisation_*``: FLOPs a second of a step, over those of the best square product."""
    with one_core():
        precision = settle_precision(Precision.AUTO, cpu=True)
        for width in WIDTHS:
            peak = max(_product(size, precision) for size in SIZES)
            spent, flops = _step(width, precision)
            yield {
                "name": f"utilisation_width_{width}",
                "value": flops / spent / 1e9,
                "unit": f"GFLOP per CPU second of a step, {precision}; baseline: square products",
                "baseline": peak / 1e9,
                "ratio": flops / spent / peak,
            }


def _product(size: int, precision: Precision) -> float:
    """FLOPs a CPU second of a product of two square matrices."""
    one, other = torch.randn(size, size), torch.randn(size, size)
    if precision is Precision.BFLOAT16:
        one, other = one.bfloat16(), other.bfloat16()
    count = max(1, 2048**3 // size**3 // 4)

    def work() -> None:
        for _ in range(count):
            one @ other

    work()
    return 2.0 * size**3 * count / fastest(work, REPEATS)[0]


def _step(width: int, precision: Precision) -> tuple[float, float]:
    """CPU seconds of a training step of a Llama so wide, and its FLOPs."""
    torch.manual_seed(0)
    backbone: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": width * 11 // 4,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
    }
    config = ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=CODES)
    model = ProxyByteForCausalLM(config)
    optimizer = make_adamw(model, OptimizerConfig())
    ids = torch.randint(64, config.vocab_size, (ROWS, ROW_LENGTH))
    places = torch.arange(ROW_LENGTH).expand(ROWS, -1)

    def step() -> None:
        with autocast(precision, CPU):
            loss = model(input_ids=ids, position_ids=places, labels=ids, num_items_in_batch=float(ids.numel())).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    if name := os.environ.get("PROXYBYTE_BENCH_PROFILE"):
        _profile(step, f"{name}-{width}.txt")
    return fastest(step, REPEATS, time.process_time)[0], ROWS * training_flops(config, ROW_LENGTH)


def _profile(step: Any, out: str) -> None:
    """Write what a step spends its time on."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40)
    Path(out).write_text(table, encoding="utf-8")
