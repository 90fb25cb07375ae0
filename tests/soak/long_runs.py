"""Does memory grow, do descriptors? One training run, and calls of ``generate``, watched for as long as is asked."""

import contextlib
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from command_client import CommandServer
from soak_inputs import Inputs

GROWTH = 0.02
"""Allowed of memory, from the second tenth of the time to its last."""
_EVERY = 1.0


def watch(sample: Callable[[], tuple[int, int] | None], going_on: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Figures so far, again and again.

    Args:
        sample: bytes of memory and number of descriptors now, after some work; ``None`` where there is nothing to see.
        going_on: whether to take another.
    """
    memory: list[int] = []
    descriptors: list[int] = []
    while going_on() and (seen := sample()) is not None:
        memory.append(seen[0])
        descriptors.append(seen[1])
        if len(memory) >= 20:
            yield figures(memory, descriptors)


def figures(memory: list[int], descriptors: list[int]) -> dict[str, Any]:
    """Medians of the second tenth and of the last, and whether they are what was promised."""
    tenth = len(memory) // 10
    early, late = slice(tenth, 2 * tenth), slice(-tenth, None)
    megabytes = [statistics.median(memory[part]) / 1e6 for part in (early, late)]
    opened = [int(statistics.median(descriptors[part])) for part in (early, late)]
    growth = megabytes[1] / megabytes[0] - 1
    return {
        "samples": len(memory),
        "megabytes": [round(value, 1) for value in megabytes],
        "growth": round(growth, 4),
        "descriptors": opened,
        "kept": growth <= GROWTH and opened[1] <= opened[0],
    }


def training(inputs: Inputs, server: CommandServer, out: Path, seconds: float) -> Iterator[dict[str, Any]]:
    """A run with evaluations and checkpoints all the while, ended by SIGTERM when the time is up."""
    words = inputs.words("train", out)
    words += ["plan.budget=1e9", "log.every=20", "checkpoint.every=200", "checkpoint.keep=2", "evaluation.every=500"]
    process = server.fork(words, environment={"ACCELERATE_USE_CPU": "true"})
    metrics, began = out / "metrics.jsonl", time.monotonic()
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.returncode is None and time.monotonic() - began < 600, process.said()
        time.sleep(0.05)
    seen, began = psutil.Process(process.pid), time.monotonic()

    def sample() -> tuple[int, int] | None:
        time.sleep(min(_EVERY, seconds / 60))
        with contextlib.suppress(psutil.Error):
            return seen.memory_info().rss, seen.num_fds()
        return None

    for row in watch(sample, lambda: process.returncode is None and time.monotonic() - began < seconds):
        steps = metrics.read_bytes().rstrip().rpartition(b'"step": ')[2].split(b",")[0]
        yield {**row, "seconds": round(time.monotonic() - began), "steps": int(steps)}
    process.send_signal(signal.SIGTERM)
    code = process.wait(600)
    assert code == 0, process.said()


def generation(named: str, calls: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Calls of ``generate`` in this process: greedy and sampled, alone and in batches, of many lengths."""
    import torch

    from proxybyte.artefacts import find_model
    from proxybyte.model_loading import load_causal_model, load_tokenizer

    folder = find_model(named).model
    model, tokenizer = load_causal_model(folder, "float32"), load_tokenizer(folder)
    tokenizer.padding_side = "left"
    rng, this, began, made = random.Random(0), psutil.Process(), time.monotonic(), 0
    torch.manual_seed(0)

    def sample() -> tuple[int, int]:
        nonlocal made
        for _ in range(max(1, calls // 200)):
            prompts = ["def f(x):\n" * rng.randint(1, 12) for _ in range(rng.choice((1, 1, 1, 4)))]
            batch = tokenizer(prompts, return_tensors="pt", padding=True)
            how = rng.choice(({"do_sample": False}, {"do_sample": True, "temperature": 0.8}))
            model.generate(**batch, max_new_tokens=rng.randint(1, 24), **how)
            made += 1
        return this.memory_info().rss, this.num_fds()

    for row in watch(sample, lambda: made < calls and time.monotonic() - began < seconds):
        yield {**row, "seconds": round(time.monotonic() - began), "calls": made}
