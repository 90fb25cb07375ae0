"""Training beside a busy process: with the commands' setting for threads that wait, and without.

A process with one thread waits for none of its own, so beside busy others it has what the scheduler gives it: that is
the fair share, in the same weather. The steps of all the ways take turns, a few seconds each.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figures import Figure

from proxybyte.cli import let_threads_sleep

HERE = Path(__file__).parent
SHAPE: dict[str, Any] = {
    "vocab_size": 2368,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
ROWS, ROW_LENGTH = 8, 256
SECONDS, TURNS = 2.0, 4


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``threads_*``: steps a second of all threads, over those of one."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    ours = dict(plain)
    let_threads_sleep(ours)
    ways = {"one": {**plain, "OMP_NUM_THREADS": "1"}, "ours": ours, "plain": plain}
    trainers = {name: _start(environment) for name, environment in ways.items()}
    try:
        for trainer in trainers.values():
            assert trainer.stdout is not None
            trainer.stdout.readline()
        yield from _figures("as_found", trainers, "beside whatever else the machine does")
        loop = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        try:
            yield from _figures("beside_busy", trainers, "beside one busy process more")
        finally:
            loop.kill()
            loop.wait()
    finally:
        for trainer in trainers.values():
            trainer.communicate()


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    script = f"import sys; sys.path.insert(0, {str(HERE)!r}); import threads_bench; threads_bench.train()"
    words = [sys.executable, "-c", script]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _figures(name: str, trainers: dict[str, subprocess.Popen[str]], where: str) -> Iterator[Figure]:
    speeds: dict[str, list[float]] = {way: [] for way in trainers}
    for _ in range(TURNS):
        for way, trainer in trainers.items():
            assert trainer.stdin is not None and trainer.stdout is not None
            print(SECONDS, file=trainer.stdin, flush=True)
            speeds[way].append(float(trainer.stdout.readline()))
    middle = {way: statistics.median(found) for way, found in speeds.items()}
    for way, said in {"ours": "with threads that sleep", "plain": "as OpenMP has it"}.items():
        yield {
            "name": f"threads_{name}_{way}",
            "value": middle[way],
            "unit": f"steps/s {where}, {said}; baseline: one thread, the fair share",
            "baseline": middle["one"],
            "ratio": middle[way] / middle["one"],
        }


def train() -> None:
    """Train a small Llama for so many seconds as each line of standard input says; answers with steps a second."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        ids = torch.randint(0, SHAPE["vocab_size"], (ROWS, ROW_LENGTH))
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    print("ready", flush=True)
    for line in sys.stdin:
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < float(line):
            step()
            count += 1
        print(count / (time.perf_counter() - start), flush=True)
