"""What each process of ``distributed_bench`` does; process 0 prints what was measured as one line of JSON.

python -m torch.distributed.run --standalone --nproc-per-node N distributed_worker.py speed|memory FOLDER
"""

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from figures import peak_growth_mb
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

from proxybyte.training.run.assemble import assemble, open_data, open_stage
from proxybyte.training.run.config import TrainConfig
from proxybyte.training.run.data import RowShare, fetch
from proxybyte.training.run.distributed import Stage
from proxybyte.training.run.loop import Loop, Run
from proxybyte.training.run.metrics import Count, Totals
from proxybyte.training.run.step import train_step

ROW_LENGTH = 256
ROWS_EACH = 4
STEPS_A_TURN = 3
TURNS = 9
SAVES = 5
SPEED = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
MEMORY = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8}


def make_run(folder: Path, shape: dict[str, int], processes: int, parallel: str) -> tuple[Run, Stage]:
    """A run over the data in ``folder``, which is never begun."""
    backbone = {**shape, "num_key_value_heads": shape["num_attention_heads"], "max_position_embeddings": ROW_LENGTH}
    config = TrainConfig.model_validate(
        {
            "output": folder / f"run-{parallel}-{processes}",
            "data": folder / "data",
            "model": {"backbone_config": {"model_type": "llama", **backbone}},
            "plan": {"row_length": ROW_LENGTH, "budget": 1 << 20, "budget_unit": "symbols"},
            "batch": {"rows_per_step": ROWS_EACH * processes, "rows_per_device": ROWS_EACH},
            "log": {"trackers": [], "plot": False},
            "compute": {"device": "cpu", "parallel": parallel},
            "evaluation": {"every": 0},
        }
    )
    stage = open_stage(config)
    config.output.mkdir(parents=True, exist_ok=True)
    return assemble(config, stage, open_data(config), None), stage


def steps_of(run: Run, alone: bool) -> Iterator[float]:
    """Seconds of one step after another of the whole batch, by all processes or by this one alone."""
    world = replace(run.world, rank=0, size=1) if alone else run.world
    share = RowShare(run.share.order, run.share.rows_per_device, world.rank, world.size)
    engine = replace(run.engine, model=run.raw_model) if alone else run.engine
    for step in range(run.steps):
        began = time.perf_counter()
        batches = fetch(run.data.dataset, share, step)
        targets = world.gather(batches.counts[:, Count.TARGETS].sum(keepdims=True)).sum()
        train_step(engine, batches.batches, step, float(targets), 1e-4).grad_norm.item()
        yield time.perf_counter() - began


def measure_speed(folder: Path) -> dict[str, Any]:
    """Seconds of a step of one process alone and of all together, a turn of one and a turn of the other."""
    run, stage = make_run(folder, SPEED, dist_size(), "ddp")
    together, single = steps_of(run, alone=False), steps_of(run, alone=True)
    turns: dict[str, list[float]] = {"together": [], "alone": []}
    for _ in range(TURNS):
        run.world.wait()
        turns["together"].append(sum(islice(together, STEPS_A_TURN)))
        run.world.wait()
        if run.world.is_main:
            turns["alone"].append(sum(islice(single, STEPS_A_TURN)))
        run.world.wait()  # the others sleep here
    return {**turns, **stalls(run), "threads": torch.get_num_threads(), "device": str(stage.accelerator.device)}


def stalls(run: Run) -> dict[str, list[float]]:
    """Seconds of writing a checkpoint, and of the steps between."""
    loop, steps = Loop(run, 1, Totals()), steps_of(run, alone=False)
    found: dict[str, list[float]] = {"save": [], "step": []}
    for _ in range(SAVES):
        found["step"] += list(islice(steps, STEPS_A_TURN))
        run.world.wait()
        began = time.perf_counter()
        loop.save()
        found["save"].append(time.perf_counter() - began)
    found["bytes"] = [float(sum(path.stat().st_size for path in written(run)))]
    return found


def written(run: Run) -> list[Path]:
    """Files of the checkpoint that :func:`stalls` wrote."""
    return [path for path in (run.output / "checkpoints").rglob("*") if path.is_file()]


def measure_memory(folder: Path) -> dict[str, Any]:
    """Growth of the first process's peak while a checkpoint is written: gathered on it, and in shards."""
    run, _ = make_run(folder, MEMORY, dist_size(), "fsdp")
    next(steps_of(run, alone=False))
    loop = Loop(run, 1, Totals())

    def gathered() -> None:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        model, optimizer = get_state_dict(run.raw_model, run.engine.optimizer, options=options)
        if run.world.is_main:
            tensors = {f"model.{name}": value for name, value in model.items()}
            for name, state in optimizer["state"].items():
                tensors |= {f"{name}/{key}": value for key, value in state.items()}
            save_file(tensors, run.output / "gathered.safetensors")
        run.world.wait()

    def measured(work: Callable[[], None]) -> float:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the step has freed would be taken again, and no growth be seen
        run.world.wait()
        if run.world.is_main:
            return peak_growth_mb(work)
        work()
        return 0.0

    sizes = [measured(loop.save), measured(gathered)]
    weights = sum(parameter.numel() for parameter in run.raw_model.parameters())
    return {"sharded": sizes[0], "gathered": sizes[1], "state": 12 * weights / 1e6, **stalls(run)}


def dist_size() -> int:
    """Number of processes, before there is a group."""
    return int(os.environ["WORLD_SIZE"])


def main() -> None:
    """Measure what is asked for."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    found = {"speed": measure_speed, "memory": measure_memory}[what](folder)
    if dist.get_rank() == 0:
        print(json.dumps(found), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
