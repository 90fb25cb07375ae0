"""How much of the bare forward pass's throughput the evaluation of bits per byte keeps.

Baseline: the same model on full rows of random bytes, logits and nothing more. Both are counted in positions that the
model reads per second; padding in the evaluation's batches counts as time and not as work.
"""

import platform
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from proxybyte.eval.bpb import bits_per_byte
from proxybyte.eval.loading import pick_device
from proxybyte.eval.scoring import Scoring
from proxybyte.symbols import BYTE_OFFSET, NUM_RAW_SYMBOLS

WINDOW = 1023
ROUNDS = 3


def measure() -> list[dict]:
    """One row: the ratio of the two throughputs, the median of rounds that alternate between them."""
    device = pick_device("auto")
    on_cpu = device.type == "cpu"
    model = _model(layers=4 if on_cpu else 12, width=256 if on_cpu else 768).to(device)
    if not on_cpu:
        model = model.to(torch.bfloat16)
    positions = 4096 if on_cpu else 16384
    documents = _documents(16_000 if on_cpu else 8_000_000)
    scoring = Scoring(window=WINDOW, batch_positions=positions)
    rows = torch.randint(BYTE_OFFSET, NUM_RAW_SYMBOLS, (positions // (WINDOW + 1), WINDOW + 1), device=device)
    passes = 6 if on_cpu else 100

    def forward() -> int:
        with torch.inference_mode():
            for _ in range(passes):
                model(input_ids=rows, use_cache=False)
        return passes * rows.numel()

    def evaluate() -> int:
        return bits_per_byte(model, documents, scoring).n_positions

    forward(), evaluate()
    pairs = [(_rate(evaluate, device), _rate(forward, device)) for _ in range(ROUNDS)]
    evaluated, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    return [
        {
            "name": "bpb_eval_vs_forward_ratio",
            "value": round(evaluated),
            "unit": "positions/s",
            "baseline": round(bare),
            "ratio": round(statistics.median(ours / theirs for ours, theirs in pairs), 3),
            "machine": _machine(device),
        }
    ]


def _rate(work: Callable[[], int], device: torch.device) -> float:
    started = time.perf_counter()
    done = work()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return done / (time.perf_counter() - started)


def _model(layers: int, width: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=NUM_RAW_SYMBOLS,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=WINDOW + 1,
    )
    return LlamaForCausalLM(config).eval()


def _documents(size: int) -> list[bytes]:
    """Files of the standard library, small and large as they come, of ``size`` bytes in all at most."""
    documents: list[bytes] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if path.stat().st_size <= size:
            documents.append(path.read_bytes())
            size -= len(documents[-1])
    return documents


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
