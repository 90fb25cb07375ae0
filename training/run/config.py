"""What a training run is told: every key of a recipe, with its type, default and meaning.

Reading a recipe from disk, ``key=value`` overrides and messages for people are in ``config_io``.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from proxybyte.artefacts import ModelFolder, find_model
from proxybyte.symbols import View

from ..settings import Section
from ..signs_of_life import DEFAULT_SECONDS
from ..stream.plan import PlanConfig
from .lever_config import LeversConfig, Ramp


class Attention(StrEnum):
    """Which implementation of attention the backbone runs."""

    SDPA = "sdpa"
    EAGER = "eager"
    FLEX = "flex_attention"


class Precision(StrEnum):
    """In which numbers the forward and backward pass run; weights and optimizer state are float32 throughout."""

    AUTO = "auto"
    """bfloat16 on an accelerator; on a CPU what its instructions make fastest (docs/training.md)."""
    FLOAT32 = "float32"
    MEDIUM = "medium"
    """float32, with matrix products in bfloat16 where the processor has tiles for it (AMX); float32 elsewhere."""
    BFLOAT16 = "bfloat16"
    """Autocast to bfloat16."""


class Parallel(StrEnum):
    """How several processes share the model."""

    DDP = "ddp"
    """Each holds all of it."""
    FSDP = "fsdp"
    """Weights, gradients and optimizer state are sharded (FSDP2)."""


class Decay(StrEnum):
    """Shape of the learning rate after warm-up."""

    COSINE = "cosine"
    WSD = "wsd"
    """Warm-up, stable, then a linear fall over the last ``decay`` of the run."""
    CONSTANT = "constant"


class Tracker(StrEnum):
    """Where metrics go beside ``metrics.jsonl``."""

    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"
    WANDB = "wandb"


class ModelConfig(Section):
    """The model: exactly one of ``preset``, ``backbone_config`` and ``checkpoint``."""

    preset: str | None = Field(None, description="name of a size in hub_configs/presets")
    backbone_config: dict[str, Any] | None = Field(None, description="a Transformers decoder's config, with model_type")
    checkpoint: Path | None = Field(
        None, description="whose weights the run starts from: a run, a model folder, an export or a name on the Hub"
    )
    attention: Attention = Field(Attention.SDPA, description="flex_attention has no backward on a CPU")
    num_pred_heads: int | None = Field(None, ge=1, description="heads over all symbols; 1, or the checkpoint's own")
    num_raw_pred_heads: int | None = Field(None, ge=0, description="heads over raw symbols; 0, or the checkpoint's own")

    @property
    def base(self) -> ModelFolder | None:
        """Where the model of ``checkpoint`` lies.

        Raises:
            ProxyByteError: if there is none.
        """
        return find_model(self.checkpoint) if self.checkpoint is not None else None

    @property
    def heads(self) -> dict[str, Any]:
        """The numbers of heads that are given, as ``ProxyByteConfig`` names them."""
        given = {"num_pred_heads": self.num_pred_heads, "num_raw_pred_heads": self.num_raw_pred_heads}
        return {name: number for name, number in given.items() if number is not None}

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("preset", "backbone_config", "checkpoint") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of preset, backbone_config and checkpoint, not {' and '.join(given) or 'none'}"
            )
        return self


class AdapterKind(StrEnum):
    """What is trained in the place of the decoder's weights."""

    NONE = "none"
    """Nothing: the weights themselves are trained."""
    LORA = "lora"
    DORA = "dora"


class TrainedRows(StrEnum):
    """Which rows of embedding and head are trained beside an adapter."""

    ALL = "all"
    RAW = "raw"
    """Those of the 320 raw symbols: a small adapter that leaves the compressed view's rows alone."""
    NONE = "none"


class FrozenWeights(StrEnum):
    """In which numbers the weights under an adapter are held; what is trained is float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    """Half the memory; needs ``precision: bfloat16``."""


class AdapterConfig(Section):
    """An adapter by PEFT; the weights of ``model.checkpoint`` stay as they are."""

    kind: AdapterKind = Field(AdapterKind.NONE, description="what is trained in the place of the decoder's weights")
    rank: int = Field(16, ge=1, description="of the adapter's matrices")
    alpha: float = Field(32.0, gt=0, description="the adapter's output is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapter's input")
    targets: str | tuple[str, ...] = Field("all-linear", description="modules of the decoder, as PEFT names them")
    rows: TrainedRows = Field(TrainedRows.ALL, description="rows of embedding and head trained beside it")
    frozen: FrozenWeights = Field(FrozenWeights.FLOAT32, description="numbers that hold the weights under it")


class TrainableConfig(Section):
    """What of the model is trained, and when."""

    embeddings_only: float = Field(
        0.0, ge=0, le=1, description="share of steps, at the start, that move embedding and head alone"
    )
    first_layers: int = Field(0, ge=0, description="layers at the decoder's beginning that move with them then")
    last_layers: int = Field(0, ge=0, description="layers at its end that do")
    adapter: AdapterConfig = AdapterConfig()


class TeacherKind(StrEnum):
    """At which bytes of raw text the base is asked for the next one."""

    BORDER = "border"
    """Where a token ends."""
    DENSE = "dense"
    """At every byte."""


class TeacherConfig(Section):
    """The base model's opinion as further signals (``training/run/teacher.py``)."""

    weight: float = Field(0.0, ge=0, description="of its next bytes in the loss; 0 for none")
    kind: TeacherKind = Field(TeacherKind.BORDER, description="at which bytes weight asks for its next ones")
    tokens: Ramp = Field(Ramp(), description="weight of its next tokens, asked of the rows of the compressed view")
    chunks: Ramp = Field(Ramp(), description="weight of a token's likelihood against that of its bytes")
    hidden: Ramp = Field(Ramp(), description="weight of one minus the cosine with its hidden states at token ends")
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field((), description="after which layers, from 1, for hidden")
    temperature: float = Field(100.0, gt=0, description="by whose inverse power chunks' likelihoods are flattened")
    model: Path | None = Field(None, description="folder that 'proxybyte byteify' wrote; model.checkpoint if absent")

    @property
    def speaks(self) -> bool:
        """Whether it has a signal at all."""
        return any((self.weight, self.tokens.value, self.chunks.value, self.hidden.value))

    @model_validator(mode="after")
    def _hidden_has_layers(self) -> Self:
        if bool(self.hidden.value) != bool(self.layers):
            raise ValueError("teacher.hidden.value and teacher.layers go together: name the layers, or leave both out")
        return self


class SuffixRowsTraining(Section):
    """Each raw byte is read with the row of the longest token that ends there (``modeling_proxy/suffix_rows.py``)."""

    mix: Ramp = Field(Ramp(), description="share of that row, at most 1; at nothing at the end, export can be native")
    tokens: int | None = Field(None, ge=1, description="only the first so many tokens of the vocabulary; all if absent")
    hashed: int | None = Field(
        None,
        ge=1,
        le=64,
        description="the last so many bytes, hashed to such a row, in place of the token; none if absent",
    )

    @model_validator(mode="after")
    def _is_a_share(self) -> Self:
        if self.mix.value > 1:
            raise ValueError(f"mix.value is {self.mix.value:g}: give a share of at most 1")
        if self.hashed is not None and self.tokens is not None:
            raise ValueError("hashed knows no tokens: leave tokens out")
        return self


class BatchConfig(Section):
    """How many rows make a step; accumulation follows from it and the number of processes."""

    rows_per_step: int = Field(32, ge=1, description="rows of one optimizer step, over all processes")
    rows_per_device: int = Field(8, ge=1, description="rows of one forward pass on one device")
    shuffle_steps: int = Field(64, ge=1, description="the rows of this many steps are shuffled together")


class OptimizerKind(StrEnum):
    """In which numbers AdamW keeps its two moments."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    """Quantised by blocks, a quarter of the memory; by the package bitsandbytes."""


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """AdamW; weight decay touches matrices only."""

    kind: OptimizerKind = Field(OptimizerKind.ADAMW, description="adamw_8bit needs the package bitsandbytes")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="of AdamW")
    eps: float = Field(1e-8, gt=0, le=1, description="of AdamW")
    weight_decay: float = Field(0.1, ge=0, description="on matrices")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")


class LearningRateConfig(Section):
    """The learning rate's shape over the run, as fractions of its steps and of the peak."""

    shape: Decay = Field(Decay.COSINE, description="after warm-up; wsd is flat, then falls linearly")
    warmup: float = Field(0.02, ge=0, le=1, description="share of steps over which it rises linearly from zero")
    decay: float = Field(0.2, ge=0, le=1, description="share of steps over which wsd falls at the end")
    final: float = Field(0.1, ge=0, le=1, description="last learning rate as a share of the peak")
    rewarm: float = Field(
        0.0,
        ge=0,
        description="where plan.schedule's decay begins, the whole shape begins anew with so much of the peak; 0: no",
    )

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.shape is Decay.WSD and self.warmup + self.decay > 1 + 1e-9:
            raise ValueError(f"warmup + decay is {self.warmup + self.decay:g}: the phases add up to at most 1")
        return self


class ComputeConfig(Section):
    """How the same arithmetic is carried out; may be changed between a run and its resumption."""

    device: str = Field("auto", pattern="^(auto|cpu)$", description="auto (an accelerator if there is one) or cpu")
    parallel: Parallel = Field(Parallel.DDP, description="ddp, or fsdp (FSDP2), which shards the model")
    processes: int | None = Field(None, ge=1, description="stop unless this many processes run")
    timeout: float = Field(
        DEFAULT_SECONDS,
        ge=1,
        le=1e7,
        description="seconds after which a process that gives no sign of life is named, and all end",
    )
    compile: bool = Field(False, description="compile the decoder blocks")
    activation_checkpointing: bool = Field(False, description="recompute activations instead of keeping them")


class LogConfig(Section):
    """What is written while the run goes on."""

    every: int = Field(10, ge=1, description="steps between two readings of the device")
    trackers: tuple[Tracker, ...] = Field((Tracker.TENSORBOARD,), description="where metrics go beside metrics.jsonl")
    project: str = Field(
        "proxybyte", pattern=r"^[\w-][\w .-]*$", max_length=128, description="project name at the trackers"
    )
    plot: bool = Field(True, description="draw loss.png at the end")
    raw_gradient_every: int = Field(
        0, ge=0, description="steps between measurements of the raw targets' gradient norm, a pass each; 0 for none"
    )


class CheckpointConfig(Section):
    """How often the state is saved."""

    every: int = Field(500, ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="how many of the last are kept")


class EvaluationConfig(Section):
    """Bits per byte on validation documents while the run goes on."""

    every: int = Field(500, ge=0, description="steps between evaluations, which start and end have too; 0 for none")
    documents: int = Field(64, ge=1, description="documents of the validation split, spread evenly over it")
    max_bytes: int = Field(16384, ge=1, description="bytes of each document that are scored")
    views: tuple[View, ...] = Field((View.RAW,), min_length=1, description="views to score: raw, compressed")
    transfer: bool = Field(
        False, description="score heads that fit in both views, each alone and with the other in the context"
    )


class TrainConfig(Section):
    """One run."""

    output: Path = Field(description="run folder")
    data: Path = Field(description="folder written by 'proxybyte prepare', or a JSONL file of conversations")
    seed: int = Field(0, ge=0, description="initial weights and dropout; plan.seed is the order of the data")
    precision: Precision = Field(Precision.AUTO, description="of forward and backward; auto goes by the device")
    model: ModelConfig
    trainable: TrainableConfig = TrainableConfig()
    teacher: TeacherConfig = TeacherConfig()
    suffix_rows: SuffixRowsTraining = SuffixRowsTraining()
    levers: LeversConfig = LeversConfig()
    raw_rows_only: bool = Field(
        False, description="the loss knows the rows of the 320 raw symbols alone, as raw text is generated and scored"
    )
    plan: PlanConfig = PlanConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    learning_rate: LearningRateConfig = LearningRateConfig()
    compute: ComputeConfig = ComputeConfig()
    log: LogConfig = LogConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _adapter_fits(self) -> Self:
        adapter = self.trainable.adapter
        if adapter.kind is AdapterKind.NONE:
            if adapter.frozen is not FrozenWeights.FLOAT32:
                raise ValueError("trainable.adapter.frozen is for adapters: set trainable.adapter.kind")
            return self
        if self.model.checkpoint is None:
            raise ValueError("trainable.adapter needs model.checkpoint, whose weights it adapts")
        if self.model.heads:
            raise ValueError("trainable.adapter adapts the heads that are there: add new ones in a run without it")
        if self.compute.parallel is Parallel.FSDP:
            raise ValueError("trainable.adapter runs under compute.parallel=ddp: its frozen weights are not sharded")
        if self.trainable.embeddings_only and adapter.rows is TrainedRows.NONE:
            raise ValueError("trainable.embeddings_only needs rows to train: trainable.adapter.rows is none")
        return self

    @model_validator(mode="after")
    def _teacher_is_somewhere(self) -> Self:
        if self.teacher.speaks and self.teacher.model is None and self.model.checkpoint is None:
            raise ValueError("a teacher needs teacher.model, a folder that 'proxybyte byteify' wrote")
        return self

    @model_validator(mode="after")
    def _superposed_fits(self) -> Self:
        if not self.plan.superposed:
            return self
        if self.compute.parallel is Parallel.FSDP:
            raise ValueError("plan.superposed runs under compute.parallel=ddp: bags read whole rows")
        if View.COMPRESSED in self.evaluation.views or self.evaluation.transfer:
            raise ValueError(
                "plan.superposed has no compressed view to score: leave it out of evaluation.views, and "
                "evaluation.transfer too"
            )
        if self.teacher.speaks or self.levers.spelled_rows:
            raise ValueError("plan.superposed shows no compressed symbols: leave teacher and levers.spelled_rows out")
        if self.model.heads:
            raise ValueError("plan.superposed trains the next symbol alone: leave further heads out")
        return self

    @model_validator(mode="after")
    def _levers_fit(self) -> Self:
        if self.levers.spelled_rows and self.compute.parallel is Parallel.FSDP:
            raise ValueError("levers.spelled_rows runs under compute.parallel=ddp: rows of symbols are not sharded")
        if self.levers.spelled_rows and self.trainable.adapter.kind is not AdapterKind.NONE:
            raise ValueError("levers.spelled_rows trains the rows themselves: leave trainable.adapter out")
        if not self.levers.cross_view.speaks:
            return self
        if self.compute.parallel is Parallel.FSDP:
            raise ValueError("levers.cross_view runs under compute.parallel=ddp: it reads whole rows of the head")
        if self.trainable.adapter.kind is not AdapterKind.NONE:
            raise ValueError("levers.cross_view trains the head's own rows: leave trainable.adapter out")
        if self.plan.superposed:
            raise ValueError("plan.superposed shows no compressed symbols: leave levers.cross_view out")
        return self

    @model_validator(mode="after")
    def _raw_rows_suffice(self) -> Self:
        if self.raw_rows_only and self.plan.schedule.shows_compressed and not self.plan.superposed:
            raise ValueError(
                "raw_rows_only leaves the compressed view without a loss: set plan.schedule.rate=0, "
                "plan.schedule.warmup=0 and plan.schedule.decay=0"
            )
        return self

    @model_validator(mode="after")
    def _heads_stay_in_a_row(self) -> Self:
        heads = sum(self.model.heads.values())
        if heads >= self.plan.row_length:
            raise ValueError(
                f"model.num_pred_heads and model.num_raw_pred_heads are {heads} heads, which look further ahead than a "
                f"row of {self.plan.row_length} symbols (plan.row_length): give fewer"
            )
        return self

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        if self.batch.rows_per_step % self.batch.rows_per_device:
            raise ValueError(
                f"batch.rows_per_step ({self.batch.rows_per_step}) must be a multiple of "
                f"batch.rows_per_device ({self.batch.rows_per_device})"
            )
        return self


MAY_CHANGE_ON_RESUME = (
    "output",
    "data",
    "compute.",
    "log.",
    "checkpoint.",
    "evaluation.",
    "batch.rows_per_device",
    "model.attention",
)
"""Keys (or sections, ending in a dot) that change what is learnt by rounding at most; ``data`` is known by its
fingerprint, so the folder may move."""
