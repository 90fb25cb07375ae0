"""Processes and devices: how many there are, which device each has, and what they tell each other.

Accelerate places devices, starts the process group and wraps the model. What the processes agree on each step (counts
of targets, a request to stop) are a few numbers on the host: they travel through gloo, so no device waits for them.
"""

import atexit
import gc
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    parse_flag_from_env,
)
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.optim import Optimizer

from proxybyte.errors import ProxyByteError

from ..machine import check_asked, check_launch, end_with_launcher
from .config import Attention, BatchConfig, ComputeConfig, LogConfig, Parallel, Precision
from .precision import settle_precision

_PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them."""

    rank: int
    size: int

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def gather(self, values: np.ndarray) -> np.ndarray:
        """``values`` (float64, the same shape everywhere) of every process, shape ``(size, *values.shape)``.

        Callers sum the result themselves, in the order of the rows: a sum made by the processes would round
        differently for each number of them.
        """
        if self.size == 1:
            return values[None]
        mine = torch.from_numpy(np.ascontiguousarray(values, np.float64))
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine)
        return torch.stack(parts).numpy()

    def gather_texts(self, text: str) -> list[str]:
        """``text`` of every process, by rank."""
        content = np.frombuffer(text.encode(), np.uint8)
        lengths = self.gather(np.array([len(content)], np.float64))[:, 0].astype(int)
        padded = np.zeros(lengths.max(), np.float64)
        padded[: len(content)] = content
        rows = self.gather(padded).astype(np.uint8)
        return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            self.gather(np.zeros(1))


ALONE = World(0, 1)
"""One process."""


class _LastHold:
    """Our own reference to the process group, dropped when the process ends, after everything else that holds it.

    Freeing the group waits for gloo's threads, and these want Python's lock to drop the tensors of a finished
    collective. Where the last holder is DDP's reducer, the lock is kept while waiting: for ever (two processes that
    make, use and free a group hang within a few turns). Where it is Python, the lock is given away first.
    """

    def __init__(self) -> None:
        self._group: object = None

    def take(self) -> None:
        """Hold the process group of this process, if it has one."""
        if not dist.is_initialized():
            return
        if self._group is None:
            atexit.register(self._drop)
        self._group = dist.group.WORLD

    def _drop(self) -> None:
        gc.collect()  # a model may wait in a cycle
        self._group = None


_last_hold = _LastHold()


@dataclass(frozen=True)
class Stage:
    """Where a process computes: its device, its fellows, and in which numbers."""

    accelerator: Accelerator
    world: World
    precision: Precision


def check_machine(compute: ComputeConfig, attention: Attention, log: LogConfig) -> bool:
    """Refuse what this machine lacks; returns whether the run computes on its CPU.

    Raises:
        ProxyByteError: if a tracker is not installed, or the attention does not train on a CPU.
    """
    for tracker in log.trackers:
        if find_spec(tracker.value) is None:
            raise ProxyByteError(f"log.trackers names {tracker}, which is not installed: pip install {tracker}")
    told = parse_flag_from_env("ACCELERATE_USE_CPU")  # by the launcher
    cpu = compute.device == "cpu" or told or not torch.accelerator.is_available()
    if cpu and attention is Attention.FLEX:
        raise ProxyByteError(
            "model.attention=flex_attention trains on accelerators: on a CPU it has no backward pass; set "
            "model.attention=sdpa"
        )
    return cpu


def start(compute: ComputeConfig, precision: Precision, log: LogConfig, output: Path, cpu: bool) -> Stage:
    """Join the process group and choose this process's device and precision.

    Args:
        compute: how the processes share the model.
        precision: as asked for.
        log: whose trackers are to be told.
        output: the run folder.
        cpu: whether the run computes on its CPU, as :func:`check_machine` says.

    Raises:
        ProxyByteError: if the launcher asks for another way to share a model.
    """
    precision = settle_precision(precision, cpu)
    end_with_launcher()
    handlers: list = [DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)]
    # Who is silent is found and named by its signs of life, before the library gives up.
    patience = timedelta(seconds=max(_PATIENCE_SECONDS, 2 * compute.timeout))
    backend = {"backend": "cuda:nccl,cpu:gloo"} if torch.cuda.is_available() and not cpu else {}
    handlers.append(InitProcessGroupKwargs(timeout=patience, **backend))
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="no",
        kwargs_handlers=handlers,
        log_with=[tracker.value for tracker in log.trackers] or None,
        project_config=ProjectConfiguration(str(output), logging_dir=str(output / "tensorboard")),
        fsdp_plugin=_fsdp_plugin(precision) if compute.parallel is Parallel.FSDP and not cpu else None,
    )
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM) or (
        kind is DistributedType.FSDP and not accelerator.is_fsdp2
    ):
        raise ProxyByteError(f"the launcher asks for {kind.value}: training runs under DDP or FSDP2 (--fsdp_version 2)")
    _last_hold.take()
    return Stage(accelerator, World(accelerator.process_index, accelerator.num_processes), precision)


def check_size(size: int, wanted: int | None, batch: BatchConfig) -> None:
    """Stop where ``size`` processes run and ``wanted`` is another number, or the batch does not divide by it.

    Raises:
        ProxyByteError: naming both numbers and the way out.
    """
    check_launch(size)
    check_asked(size, wanted, "compute.processes asks for")
    check_batch(size, batch)


def check_batch(size: int, batch: BatchConfig) -> None:
    """Refuse a batch that ``size`` processes cannot share.

    Raises:
        ProxyByteError: naming the numbers.
    """
    if batch.rows_per_step % (batch.rows_per_device * size):
        raise ProxyByteError(
            f"batch.rows_per_step ({batch.rows_per_step}) must be a multiple of batch.rows_per_device "
            f"({batch.rows_per_device}) times the number of processes ({size})"
        )


def _fsdp_plugin(precision: Precision) -> FullyShardedDataParallelPlugin:
    """FSDP2 of each decoder block, through Accelerate."""
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        state_dict_type="FULL_STATE_DICT",
        cpu_ram_efficient_loading=False,
        mixed_precision_policy=_sharded_precision(precision),
    )


def _sharded_precision(precision: Precision) -> MixedPrecisionPolicy:
    """Gradients are reduced, and losses come out, in float32 whatever the precision in between."""
    inner = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
    return MixedPrecisionPolicy(param_dtype=inner, reduce_dtype=torch.float32, output_dtype=torch.float32)


def decoder_blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a Transformers model: what is sharded, compiled and checkpointed one by one."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def place(
    stage: Stage, model: nn.Module, compute: ComputeConfig, make_optimizer: Callable[[nn.Module], Optimizer]
) -> tuple[nn.Module, Optimizer]:
    """Compile, shard or replicate ``model`` over the processes, with its optimizer.

    Accelerate wraps for DDP everywhere and for FSDP2 on accelerators. On a CPU Accelerate ignores FSDP2 without a
    word, so there the model is sharded here.

    Raises:
        ProxyByteError: if the model names no block class to shard or compile by.
    """
    accelerator, blocks = stage.accelerator, decoder_blocks(model)
    if not blocks and (compute.compile or compute.parallel is Parallel.FSDP):
        raise ProxyByteError(
            f"{type(model).__name__} names no decoder block (_no_split_modules): cannot compile or shard"
        )
    if compute.compile:
        for block in blocks:
            block.compile()
    if accelerator.is_fsdp2:
        model, wrapped = accelerator.prepare(model, make_optimizer(model))
        return model, wrapped.optimizer
    if compute.parallel is Parallel.FSDP and accelerator.num_processes > 1:
        policy = _sharded_precision(stage.precision)
        for block in blocks:
            fully_shard(block, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
        return model, make_optimizer(model)
    model = accelerator.prepare_model(model)
    return model, make_optimizer(model)
