"""What ``train --dry-run`` says: all that a run will be, found as the run itself finds it, without writing anything."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import psutil
import torch
from torch import nn

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM

from ..machine import asked_processes, free_host_memory, spell_size
from ..settings import flatten
from ..stream.mixed_view import MixedViewDataset
from ..stream.plan_report import report
from ..stream.schedule import Phases
from .adapters import Adapter
from .assemble import assemble, is_finished, model_source, open_data, open_stage, resumed, row_flops
from .config import (
    AdapterKind,
    CheckpointConfig,
    Decay,
    EvaluationConfig,
    LearningRateConfig,
    OptimizerKind,
    Parallel,
    Precision,
    TrainConfig,
)
from .config_io import Resolved
from .data import TrainingData, fetch_ahead
from .distributed import check_batch, check_machine
from .metrics import Count
from .optim import check_optimizer, learning_rate
from .precision import settle_precision, why_precision
from .step import train_step

TIMED_STEPS = 2
_FEW_EVALUATIONS = 2
"""Those before the first step and at the end."""
_MOMENTS = {OptimizerKind.ADAMW: 8, OptimizerKind.ADAMW_8BIT: 2}
"""Bytes of AdamW's two moments of a weight."""


@dataclass(frozen=True)
class _Model:
    """The run's model without storage.

    Attributes:
        shape: its configuration.
        what: what it comes from.
        weights: all parameters, those of an adapter among them.
        inner: those beside embedding and heads.
        trained: those that the run moves.
    """

    shape: ProxyByteConfig
    what: str
    weights: int
    inner: int
    trained: int


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of one process.

    Attributes:
        state: weights, gradients and the optimizer's moments.
        pass_through: what a forward pass keeps for its backward pass, and the logits of one chunk with their gradient.
        fix: what to change where it is too much.
    """

    state: float
    pass_through: float
    fix: str

    @classmethod
    def of(
        cls, config: TrainConfig, shape: ProxyByteConfig, precision: Precision, weights: tuple[int, int], shards: int
    ) -> "MemoryUse":
        """About what a run takes.

        Args:
            config: the run.
            shape: of its model.
            precision: of the forward pass.
            weights: those that are trained, and those that are not.
            shards: processes that share the state among them.

        Per symbol a block of width D, with K keys and values and a gated MLP of F, keeps about 7 D + 2 K + 4 F
        numbers (inputs of norms and products, queries, keys, values, the gate's factors); attention's scores are not
        kept. Recomputed blocks keep D each, and one of them the rest.
        """
        backbone, symbols = shape.backbone_config, config.batch.rows_per_device * config.plan.row_length
        width = shape.hidden_size
        heads = shape.num_attention_heads
        keys = width * (getattr(backbone, "num_key_value_heads", None) or heads) // heads
        block = 7 * width + 2 * keys + 4 * (getattr(backbone, "intermediate_size", None) or 4 * width)
        layers = shape.num_hidden_layers
        kept = layers * width + block if config.compute.activation_checkpointing else layers * block
        item = 2 if precision is Precision.BFLOAT16 else 4
        logits = 2 * 4 * min(symbols, shape.loss_chunk_size) * shape.vocab_size
        trained, frozen = weights
        held = getattr(torch, config.trainable.adapter.frozen.value).itemsize
        return cls(
            state=(trained * (8 + _MOMENTS[config.optimizer.kind]) + frozen * held) / shards,
            pass_through=float(symbols * kept * item + logits),
            fix="lower batch.rows_per_device, or set compute.activation_checkpointing=true",
        )

    @property
    def total(self) -> float:
        """All of it."""
        return self.state + self.pass_through

    def sentence(self, free: int) -> str:
        """The parts, and what is free."""
        state, rest, there = (spell_size(size) for size in (self.state, self.pass_through, free))
        return (
            f"about {state} for weights, gradients and optimizer and {rest} for a forward pass, a process; {there} free"
        )


def free_memory(cpu: bool) -> int:
    """Bytes that are free where the run computes."""
    if cpu:
        return free_host_memory()
    return int(torch.get_device_module(torch.accelerator.current_accelerator()).mem_get_info()[0])


def dry_run(resolved: Resolved, timed: bool = False) -> str:
    """Check a run as far as its first step and say what it will be.

    Args:
        resolved: the run, and where its values came from.
        timed: whether to take a few steps, to say how long the run will take; they leave nothing behind.

    Raises:
        ProxyByteError: for whatever would stop the run before its first step.
    """
    config = resolved.config
    cpu = check_machine(config.compute, config.model.attention, config.log)
    check_optimizer(config.optimizer)
    precision = settle_precision(config.precision, cpu)
    command = psutil.Process(os.getppid()).cmdline()
    processes = config.compute.processes or asked_processes(os.environ, command) or 1
    check_batch(processes, config.batch)
    data = open_data(config)
    found = resumed(config, data)
    begun = found[1].step if found else 0
    model = _model(config, data)
    shards = processes if config.compute.parallel is Parallel.FSDP else 1
    use = MemoryUse.of(config, model.shape, precision, (model.trained, model.weights - model.trained), shards)
    rows = [
        ("run", _state(config, data, begun if found else None)),
        ("steps", _steps(config, data, model)),
        ("model", f"{model.what}: {model.weights:,} parameters, {model.inner:,} beside embedding and heads"
                  f"{f', {model.trained:,} trained' if model.trained < model.weights else ''}"),
        ("compute", _compute(config, data, model)),
        ("learning rate", _learning_rate(config.learning_rate, config.optimizer.lr, data)),
        ("precision", f"{precision} ({why_precision(config.precision, cpu)})"),
        ("device", f"{'cpu' if cpu else torch.accelerator.current_accelerator()}, {processes} process(es)"
                   f"{f' under {config.compute.parallel}' if processes > 1 else ''}"),
        ("memory", use.sentence(free_memory(cpu))),
        ("time", _time(config, data, begun) if timed else "not measured: --time takes two steps and says"),
        ("checkpoints", f"every {config.checkpoint.every:,} steps and at the end; {config.checkpoint.keep} are kept"),
        ("evaluation", _evaluation(config.evaluation, data)),
        ("trackers", ", ".join(config.log.trackers) or "none, metrics.jsonl alone"),
    ]  # fmt: skip
    width = max(len(name) for name, _ in rows)
    sections = [
        "\n".join(f"{name:<{width}}  {text}" for name, text in rows),
        data.describe(),
        _configuration(resolved),
        "\n".join(f"warning: {sentence}" for sentence in _warnings(config, data, model, use, cpu)),
    ]
    return "\n\n".join(section for section in sections if section)


def _model(config: TrainConfig, data: TrainingData) -> _Model:
    base = config.model.base
    folder = base.model if base else None
    source = model_source(config, data.num_codes)
    shape, what = source.shape(folder)
    model = source.without_storage(shape, what)
    source.check_fit(shape, folder)
    inner = _count(model) - _ends(model)
    if config.trainable.adapter.kind is AdapterKind.NONE:
        return _Model(shape, what, _count(model), inner, _count(model))
    with torch.device("meta"):
        Adapter.attach(model, config.trainable.adapter, config.seed)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return _Model(shape, what, _count(model), inner, trained)


def _count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _ends(model: ProxyByteForCausalLM) -> int:
    """Parameters of the embedding and of all heads; tied ones count once."""
    ends = [model.get_input_embeddings().weight, model.lm_head.weight]
    further = [weight for name, weight in model.named_parameters() if "pred_heads." in name]
    return sum({id(weight): weight.numel() for weight in [*ends, *further]}.values())


def _state(config: TrainConfig, data: TrainingData, begun: int | None) -> str:
    if begun is None:
        return f"{config.output}, new"
    if is_finished(config, data, begun):
        return f"{config.output}, finished: step {begun:,} of {data.steps:,}"
    return f"{config.output}, goes on from step {begun:,} of {data.steps:,}"


def _symbols(config: TrainConfig, data: TrainingData) -> int:
    return data.steps * config.batch.rows_per_step * config.plan.row_length


def _steps(config: TrainConfig, data: TrainingData, model: _Model) -> str:
    symbols = _symbols(config, data)
    return (
        f"{data.steps:,} of {config.batch.rows_per_step} rows of {config.plan.row_length:,} symbols: {symbols:,} "
        f"symbols, {symbols / model.inner:.3g} for each weight beside embedding and heads"
    )


def _compute(config: TrainConfig, data: TrainingData, model: _Model) -> str:
    row = row_flops(config, model.shape, data)
    step = row * config.batch.rows_per_step
    return f"{step * data.steps:.3g} FLOPs, {step:.3g} a step, {row / config.plan.row_length:.3g} a symbol"


def _learning_rate(shape: LearningRateConfig, peak: float, data: TrainingData) -> str:
    steps, border = data.steps, data.phases.decay
    if shape.rewarm and 0 < border < steps:
        return f"{shape.shape} up to step {border:,}, and again from there with {shape.rewarm:g} of the peak"
    phases = Phases.of(steps, shape.warmup, shape.decay if shape.shape is Decay.WSD else 0.0)
    last = learning_rate(shape, peak, steps - 1, steps)
    rise = f"rises over {phases.steady:,} steps to {peak:g}"
    match shape.shape:
        case Decay.CONSTANT:
            return f"{rise}, then constant"
        case Decay.WSD:
            return f"{rise}, falls linearly over the last {steps - phases.decay:,} of {steps:,} to {last:.3g} (wsd)"
    return f"{rise}, falls to {last:.3g} at step {steps:,} (cosine)"


def _evaluation(evaluation: EvaluationConfig, data: TrainingData) -> str:
    every, documents = evaluation.every, len(data.validation_documents(evaluation))
    if not every or not documents:
        return "none"
    return (
        f"{_times(every, data.steps):,} times (before the first step, every {every:,} steps, at the end), on "
        f"{documents:,} documents in {' and '.join(evaluation.views)} view"
    )


def _times(every: int, steps: int) -> int:
    """Evaluations of the whole run."""
    return 1 + steps // every + (steps % every > 0)


def _time(config: TrainConfig, data: TrainingData, begun: int) -> str:
    seconds = _seconds_per_step(config, data)
    left = (data.steps - begun) * seconds
    shown = f"{left / 3600:.1f} h" if left >= 5400 else f"{left / 60:.1f} min" if left >= 90 else f"{left:.0f} s"
    return f"about {shown}: {data.steps - begun:,} steps of {seconds:.3g} s, beside evaluations and checkpoints"


def _seconds_per_step(config: TrainConfig, data: TrainingData) -> float:
    """Seconds of an optimizer step, the mean of a few after a first one that warms up."""
    stage = open_stage(config)
    job = assemble(config, stage, data, None)
    wanted = range(min(1 + TIMED_STEPS, data.steps))
    since = time.perf_counter()
    for step, batches in enumerate(islice(fetch_ahead(data.dataset, job.share, wanted), len(wanted))):
        targets = stage.world.gather(np.array([batches.counts[:, Count.TARGETS].sum()])).sum()
        train_step(job.engine, batches.batches, step, float(targets), job.learning_rate(step)).grad_norm.item()
        if step == 0 and len(wanted) > 1:
            since = time.perf_counter()
    stage.accelerator.free_memory()
    return (time.perf_counter() - since) / max(1, len(wanted) - 1)


def _configuration(resolved: Resolved) -> str:
    values = flatten(resolved.config.model_dump(mode="json"))
    spelled = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    keys, width = max(map(len, spelled)), min(40, max(map(len, spelled.values())))
    lines = [f"  {key:<{keys}}  {text:<{width}}  {resolved.origins[key]}" for key, text in spelled.items()]
    return "\n".join(["configuration, and where each value comes from", *lines])


def _warnings(config: TrainConfig, data: TrainingData, model: _Model, use: MemoryUse, cpu: bool) -> Sequence[str]:
    """Where the run will disappoint, one sentence each."""
    told: list[str] = []
    if isinstance(data.dataset, MixedViewDataset):
        told += report(data.dataset.plan).warnings()
    symbols = _symbols(config, data)
    if symbols < model.inner:
        told.append(
            f"{symbols:,} symbols are fewer than one for each of {model.inner:,} weights: raise plan.budget, or take "
            "a smaller model"
        )
    told += _never_due(config.evaluation, config.checkpoint, data)
    free = free_memory(cpu)
    if use.total > free:
        told.append(f"about {spell_size(use.total)} is needed and {spell_size(free)} is free: {use.fix}")
    return told


def _never_due(evaluation: EvaluationConfig, checkpoint: CheckpointConfig, data: TrainingData) -> list[str]:
    """What is to happen while the run goes on, and does not."""
    told = []
    every = evaluation.every
    if data.validation is None:
        told.append(f"nothing is evaluated: {data.path} has no validation split")
    elif not every:
        told.append("nothing is evaluated: evaluation.every is 0")
    elif _times(every, data.steps) <= _FEW_EVALUATIONS:
        told.append(
            f"evaluation never falls due between start and end: evaluation.every is {every:,} and the run has "
            f"{data.steps:,} steps"
        )
    if checkpoint.every >= data.steps:
        told.append(
            f"no checkpoint is written before the end: checkpoint.every is {checkpoint.every:,} and the run has "
            f"{data.steps:,} steps"
        )
    return told
