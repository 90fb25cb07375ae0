"""What several processes cost: two against linear, the stall of a checkpoint, memory of the process that writes.

Two processes and one take turns of a few steps in one run, so that they meet the same weather; where others are at work
on the same cores the ratio still suffers, for two processes wait for the slower of them.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figures import HERE, Figure
from train_bench import write_data

from proxybyte.training.run.config import CheckpointConfig

LIMIT = 0.10
"""Of the time of steps that a checkpoint may take at the default interval."""


def measure(long: bool) -> Iterator[Figure]:
    """Rows of ``make bench GROUP=distributed``."""
    every = CheckpointConfig().every
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data")
        speed = in_processes(2, "speed", folder)
        pairs = list(zip(speed["alone"], speed["together"], strict=True))[1:]
        yield {
            "name": "two_processes_vs_linear",
            "value": statistics.median(alone / together for alone, together in pairs),
            "unit": "times the speed of one process, 2 CPU processes (DDP, gloo), 4M Llama, median of turns",
            "baseline": 2.0,
            "ratio": statistics.median(alone / together / 2 for alone, together in pairs),
        }
        yield _stall("checkpoint_stall_share", speed, every, "4M Llama, 2 processes, whole")
        memory = in_processes(4, "memory", folder)
        yield _stall("checkpoint_stall_sharded_share", memory, every, "21M Llama, 4 processes, in shards")
        yield {
            "name": "checkpoint_peak_mb",
            "value": memory["sharded"],
            "unit": f"MB beyond the state on the writing process, 4 processes, state of {memory['state']:.0f} MB",
            "baseline": memory["gathered"],
            "ratio": memory["gathered"] / memory["sharded"],
        }


def _stall(name: str, found: dict[str, Any], every: int, what: str) -> Figure:
    """Seconds of a checkpoint for each second of the steps between two of them, by medians."""
    save, step = statistics.median(found["save"]), statistics.median(found["step"])
    share = save / (every * step)
    told = f"{what}: {save:.2f} s ({found['bytes'][0] / 1e6:.0f} MB) for {every} steps of {step:.3f} s"
    return {"name": name, "value": share, "unit": told, "baseline": LIMIT, "ratio": LIMIT / share}


def in_processes(number: int, what: str, folder: Path) -> dict[str, Any]:
    """What ``distributed_worker`` measures in ``number`` processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    words = [sys.executable, *launcher, str(HERE / "distributed_worker.py"), what, str(folder)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])
