"""How much of the bare forward pass's throughput the evaluation of bits per byte keeps.

Baseline: the same model on full rows of random bytes, logits and nothing more. Both are counted in positions that the
model reads per second; padding in the evaluation's batches counts as time and not as work.
"""

import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from figures import Figure
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.eval import Scoring, bits_per_byte
from proxybyte.eval.loading import pick_device
from proxybyte.symbols import BYTE_OFFSET, NUM_RAW_SYMBOLS

WINDOW = 1023
ROUNDS = 4
COMPRESSED_SYMBOLS = 16384


def measure(long: bool) -> Iterator[Figure]:
    """A row for a native export (scored from logits) and one for our own class (from ``target_nll``)."""
    device = pick_device("auto")
    yield _ratio("bpb_eval_vs_forward_ratio", LlamaForCausalLM(_shape(device, NUM_RAW_SYMBOLS)), device)
    yield _ratio("bpb_eval_of_proxy_vs_forward_ratio", _proxy_model(device), device)


def _ratio(name: str, model: PreTrainedModel, device: torch.device) -> Figure:
    """The best of rounds that alternate between the two: other work on the machine only ever slows one down."""
    on_cpu = device.type == "cpu"
    model = model.eval().to(device, torch.float32 if on_cpu else torch.bfloat16)
    positions = 4096 if on_cpu else 16384
    documents = _documents(16_000 if on_cpu else 8_000_000)
    scoring = Scoring(window=WINDOW, batch_positions=positions)
    rows = torch.randint(BYTE_OFFSET, NUM_RAW_SYMBOLS, (positions // (WINDOW + 1), WINDOW + 1), device=device)
    passes = 4 if on_cpu else 100

    def forward() -> int:
        with torch.inference_mode():
            for _ in range(passes):
                model(input_ids=rows, use_cache=False)
        return passes * rows.numel()

    def evaluate() -> int:
        return bits_per_byte(model, documents, scoring).n_positions

    forward(), evaluate()
    pairs = [(_rate(evaluate, device), _rate(forward, device)) for _ in range(ROUNDS)]
    evaluated, bare = (max(column) for column in zip(*pairs, strict=True))
    return {
        "name": name,
        "value": round(evaluated),
        "unit": "positions/s",
        "baseline": round(bare),
        "ratio": round(evaluated / bare, 3),
    }


def _rate(work: Callable[[], int], device: torch.device) -> float:
    started = time.perf_counter()
    done = work()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return done / (time.perf_counter() - started)


def _proxy_model(device: torch.device) -> ProxyByteForCausalLM:
    backbone = _shape(device, NUM_RAW_SYMBOLS + COMPRESSED_SYMBOLS)
    return ProxyByteForCausalLM(ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=COMPRESSED_SYMBOLS))


def _shape(device: torch.device, vocab_size: int) -> LlamaConfig:
    width, layers = (256, 4) if device.type == "cpu" else (768, 12)
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=WINDOW + 1,
    )


def _documents(size: int) -> list[bytes]:
    """Files of the standard library, small and large as they come, of ``size`` bytes in all at most."""
    documents: list[bytes] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if path.stat().st_size <= size:
            documents.append(path.read_bytes())
            size -= len(documents[-1])
    return documents
