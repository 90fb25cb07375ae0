"""What the training loop costs over a bare one.

The bare loop is what one writes to train a Transformers Llama by hand: random symbols, forward, backward, clip, AdamW.
Ours trains the same shape on packed rows of two views, with metrics of each view. Both run in one process, a few steps
of one and a few of the other in turn, so that they meet the same weather. A model with heads that predict further is
measured beside the same bare loop, and its ratio to that is set against the one without.
"""

import dataclasses
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from figures import Figure
from transformers import AutoModelForCausalLM, LlamaConfig

from proxybyte.training.compressors.bpe_train import train_bpe
from proxybyte.training.run.assemble import assemble, open_data, open_stage
from proxybyte.training.run.config import Precision, TrainConfig
from proxybyte.training.run.loop import Loop
from proxybyte.training.run.metrics import Totals
from proxybyte.training.run.precision import autocast
from proxybyte.training.stream.prepared import NUM_BORDERS

CODES = 1024
ROW_LENGTH = 256
ROWS = 4
STEPS_A_TURN = 4
TURNS = 12
HEADS = {"num_pred_heads": 4, "num_raw_pred_heads": 4}
BACKBONE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": ROW_LENGTH,
}


def measure(long: bool) -> Iterator[Figure]:
    """Rows of ``make bench``: medians over turns, the first left out."""
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "data")
        ours, bare = _take_turns(Path(folder), {})
        yield {
            "name": "train_vs_bare_ratio",
            "value": statistics.median(ours),
            "unit": "symbols per (CPU) second of training a 4M Llama",
            "baseline": statistics.median(bare),
            "ratio": _ratio(ours, bare),
        }
        headed, bare_beside = _take_turns(Path(folder), HEADS)
        yield {
            "name": "train_heads_vs_off_ratio",
            "value": statistics.median(headed),
            "unit": "symbols per (CPU) second of training it with 4 heads over all symbols and 4 over the raw ones",
            "baseline": statistics.median(ours),
            "ratio": _ratio(headed, bare_beside) / _ratio(ours, bare),
        }


def _ratio(some: list[float], others: list[float]) -> float:
    """Median over turns of what each made of the same weather."""
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


def _take_turns(folder: Path, heads: dict[str, int]) -> tuple[list[float], list[float]]:
    """Symbols per second of our loop and of the bare one, turn by turn.

    The bare loop stands where our loop evaluates: between two of its steps.
    """
    config = TrainConfig.model_validate(
        {
            "output": folder / f"run-{len(heads)}",
            "data": folder / "data",
            "model": {"backbone_config": {"model_type": "llama", **BACKBONE}, **heads},
            "plan": {
                "row_length": ROW_LENGTH,
                "budget": ROW_LENGTH * ROWS * STEPS_A_TURN * TURNS,
                "budget_unit": "symbols",
            },
            "batch": {"rows_per_step": ROWS, "rows_per_device": ROWS},
            "log": {"every": STEPS_A_TURN, "trackers": [], "plot": False},
            "evaluation": {"every": STEPS_A_TURN},
            "checkpoint": {"every": 10**6},
        }
    )
    stage = open_stage(config)
    device = stage.accelerator.device
    config.output.mkdir()
    run = assemble(config, stage, open_data(config), None)
    step = _bare_loop(device, stage.precision)
    marks: list[float] = [_clock(device)]

    def bare_turn() -> dict[str, float]:
        marks.append(_clock(device))
        for _ in range(STEPS_A_TURN):
            step()
        marks.append(_clock(device))
        return {}

    Loop(dataclasses.replace(run, evaluate=bare_turn), 0, Totals()).to_the_end()
    speeds = ROW_LENGTH * ROWS * STEPS_A_TURN / np.diff(marks)
    # Nothing of ours lies before the evaluation of step 0, and the first turn of each warms up.
    return speeds[4::2].tolist(), speeds[5::2].tolist()


def _clock(device: torch.device) -> float:
    """Seconds of processor time of all threads on a CPU, where others may be at work; else of the wall."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def _bare_loop(device: torch.device, precision: Precision) -> Callable[[], None]:
    """A step of the loop that one writes by hand, in the same precision."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=320 + CODES, **BACKBONE), dtype=torch.float32)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> None:
        ids = torch.randint(0, 320 + CODES, (ROWS, ROW_LENGTH), device=device)
        with autocast(precision, device):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def write_data(folder: Path) -> None:
    """A prepared folder of 1 MB of the standard library's source under a BPE."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [text for path in paths if (text := path.read_bytes())]
    keep = int(np.searchsorted(np.cumsum([len(text) for text in texts]), 1_000_000))
    texts = texts[:keep]
    compressor = train_bpe(texts, CODES)
    compressor.save(folder / "compressor")
    codes = [np.asarray(code) for code in compressor.encode_batch(texts)]
    table = pa.table(
        {
            "text": pa.array(texts, pa.large_binary()),
            "symbols": pa.array(codes, pa.large_list(pa.uint16())),
            "n_bytes": pa.array([len(text) for text in texts], pa.int64()),
            "n_symbols": pa.array([len(code) for code in codes], pa.int64()),
            "borders": pa.array([[0] * NUM_BORDERS] * len(texts), pa.list_(pa.uint32(), NUM_BORDERS)),
            "source": pa.array([""] * len(texts)),
        }
    )
    datasets.disable_progress_bars()
    for split in ("train", "validation"):
        datasets.Dataset(table).save_to_disk(str(folder / split))
    datasets.enable_progress_bars()
