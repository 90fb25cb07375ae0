"""Put a run together: what the loop calls, wired to data, model, processes and trackers.

This is where a run's configuration is opened: what is built here gets its own sections of it and nothing else.
"""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, build_tokenizer, save_tokenizer
from proxybyte.artefacts import CHAT_FOLDER, COMPRESSOR_FOLDER, CONFIG_FILE, MODEL_FOLDER, find_model
from proxybyte.errors import ProxyByteError
from proxybyte.eval import Scoring
from proxybyte.flops import training_flops
from proxybyte.folders import check_output, tidy, whole_folder
from proxybyte.model_loading import chat_tokenizer_in
from proxybyte.symbols import View

from ..compressors import load_compressor
from ..settings import flatten
from .adapters import Adapter, write_merged
from .checkpoint import CheckpointFolder, RunState, model_in, restore, write_model
from .config import AdapterKind, FrozenWeights, Precision, TrainConfig
from .config_io import check_resumable
from .cross_view import CrossView, cross_view_flops
from .data import RowShare, TrainingData, open_chats, open_prepared
from .distributed import ALONE, Stage, World, check_machine, check_size, place, start
from .levers import Levers, SuffixSchedule
from .loop import Run
from .metrics import MetricsLog
from .model_source import ModelOrigin, ModelSource
from .optim import RowsFirst, learning_rate, make_adamw
from .sharded import is_sharded
from .spelled import SpelledRows, spelled_flops, spelling_table
from .step import Engine
from .teacher import Lessons, Teacher
from .validation import TwoViews, Validation, code_documents, heads_that_fit

PLOT_FILE = "loss.png"
ADAPTER_FOLDER = "adapter"
RUN_KIND = "part of a run"
"""Kind of output (``proxybyte.folders``) of what a run leaves at its end."""


@dataclass(frozen=True)
class ModelWriter:
    """Writes model folders from whole tensors.

    Attributes:
        model: the model, for its class and config.
        chat: the chat tokenizer that goes with it, if any.
    """

    model: ProxyByteForCausalLM
    chat: PreTrainedTokenizerFast | None = None

    def __call__(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        """Write what ``from_pretrained`` loads, with the tokenizer."""
        _plain(self.model).save_pretrained(folder, state_dict=weights)
        save_tokenizer(build_tokenizer(opening=self.model.config.document_opening), folder)
        if self.chat is not None:
            save_tokenizer(self.chat, folder / CHAT_FOLDER)


def _plain(model: ProxyByteForCausalLM) -> ProxyByteForCausalLM:
    """``model`` for all but its weights: a sharded one has a class of PyTorch's, whose code it would carry along."""
    if not is_sharded(model):
        return model
    with torch.device("meta"):
        plain = ProxyByteForCausalLM(model.config)
    plain.generation_config = model.generation_config
    return plain


def open_stage(config: TrainConfig) -> Stage:
    """Join the process group and choose this process's device and precision.

    Raises:
        ProxyByteError: if the number of processes is not what was asked for, or this machine lacks something.
    """
    compute, log = config.compute, config.log
    cpu = check_machine(compute, config.model.attention, log)
    stage = start(compute, config.precision, log, config.output, cpu)
    check_size(stage.world.size, compute.processes, config.batch)
    return stage


def open_data(config: TrainConfig) -> TrainingData:
    """Open the data of a run and lay out its plan.

    Raises:
        ProxyByteError: if the folder or a shard of it is missing, a line is no conversation, or the plan holds less
            than one step.
    """
    plan, rows_per_step = config.plan, config.batch.rows_per_step
    if config.data.is_file():
        return open_chats(config.data, plan, rows_per_step, config.model.base)
    shown = plan.schedule.shows_compressed and not plan.superposed
    beside = config.suffix_rows.mix.value > 0 or config.levers.cross_view.symbols.value > 0
    return open_prepared(config.data, plan, rows_per_step, shown or beside)


def model_source(config: TrainConfig, num_codes: int) -> ModelSource:
    """Where the model of a run over a compressor of ``num_codes`` codes comes from."""
    adapter = config.trainable.adapter
    return ModelSource(config.model, config.plan, adapter, config.compute, config.seed, num_codes, config.data)


def row_flops(config: TrainConfig, shape: ProxyByteConfig, data: TrainingData) -> float:
    """FLOPs of forward and backward over one row, the row's share of what is done once a step among them.

    Args:
        config: the run.
        shape: of its model.
        data: whose documents say how far attention reaches.
    """
    row = training_flops(shape, config.plan.row_length, data.document_length, config.raw_rows_only)
    step = spelled_flops(config.levers, data, shape.hidden_size, bool(shape.tie_word_embeddings))
    rows_per_step = config.batch.rows_per_step
    row += cross_view_flops(config.levers.cross_view, data, shape.hidden_size, rows_per_step)
    return row + step / rows_per_step


def learning_rates(config: TrainConfig, data: TrainingData) -> Callable[[int], float]:
    """The learning rate of each step, from 0."""
    shape, peak = config.learning_rate, config.optimizer.lr
    return lambda step: learning_rate(shape, peak, step, data.steps, data.phases.decay)


def assemble(config: TrainConfig, stage: Stage, data: TrainingData, checkpoint: Path | None) -> Run:
    """Build the model (from ``checkpoint`` if given), place it on the processes and wire the run.

    Raises:
        ProxyByteError: if the model does not fit the data or cannot be built.
    """
    saved = model_in(checkpoint) if checkpoint else None
    wanted = config.trainable.adapter
    if wanted.frozen is FrozenWeights.BFLOAT16 and stage.precision is not Precision.BFLOAT16:
        raise ProxyByteError("trainable.adapter.frozen=bfloat16 computes in bfloat16 too: set precision=bfloat16")
    adapted = wanted.kind is not AdapterKind.NONE
    model = model_source(config, data.num_codes).make(None if adapted else saved)
    adapter = Adapter.attach(model, wanted, config.seed, saved) if adapted else None
    suffixes = SuffixSchedule.of(config.suffix_rows, model, data)
    engine = _engine(config, stage, data, model, checkpoint)
    world, base = stage.world, config.model.base
    # What wrote the conversations, else what the model that the run starts from carries.
    chat = data.chat or (chat_tokenizer_in(base.model) if base else None)
    raw_model = stage.accelerator.unwrap_model(engine.model)
    return Run(
        output=config.output,
        recorded=config.model_dump(mode="json"),
        log=config.log,
        checkpoint=config.checkpoint,
        evaluation=config.evaluation,
        learning_rate=learning_rates(config, data),
        world=world,
        engine=replace(engine, suffixes=suffixes, lessons=_lessons(config, stage, data, raw_model.config)),
        data=data,
        share=RowShare(
            data.row_order(config.batch, config.plan.seed), config.batch.rows_per_device, world.rank, world.size
        ),
        row_length=config.plan.row_length,
        flops_per_row=row_flops(config, model.config, data),
        raw_model=raw_model,
        save_model=adapter or ModelWriter(model, chat),
        origin=ModelOrigin(base, config.data, config.plan, wanted.kind, config.seed),
        evaluate=_validation(config, stage, data, raw_model),
    )


def _engine(
    config: TrainConfig, stage: Stage, data: TrainingData, model: ProxyByteForCausalLM, checkpoint: Path | None
) -> Engine:
    """``model`` on the processes, with its optimizer as ``checkpoint`` has it."""
    table = spelling_table(config.levers, data)
    levers = Levers(model)

    def optimize(module: nn.Module) -> torch.optim.Optimizer:
        nonlocal levers
        # Where it is to be trained: moving it to a device would give its rows another memory.
        bare, trained = stage.accelerator.unwrap_model(module), config.model.checkpoint is not None
        spelled = SpelledRows(bare, table, config.seed, checkpoint, trained) if table else None
        levers = Levers(bare, spelled, CrossView.asked(config.levers.cross_view, data, bare, checkpoint))
        return make_adamw(levers, config.optimizer)

    placed, optimizer = place(stage, model, config.compute, optimize)
    raw_model = stage.accelerator.unwrap_model(placed)
    # Of the placed model: sharding puts other parameters in the place of the first ones.
    levers = replace(levers, model=raw_model)
    rows_first = RowsFirst.of(raw_model, config.trainable, data.steps, stage.world.size == 1)
    if checkpoint:
        restore(checkpoint, raw_model, levers, optimizer, rows_first.names)
    return Engine(
        accelerator=stage.accelerator,
        model=placed,
        optimizer=optimizer,
        precision=stage.precision,
        clip=config.optimizer.clip,
        seed=config.seed,
        rows_first=rows_first,
        levers=levers,
        raw_rows_only=config.raw_rows_only,
    )


def resumed(config: TrainConfig, data: TrainingData, world: World = ALONE) -> tuple[Path, RunState] | None:
    """The checkpoint that a run goes on from, if its folder holds one that is whole; every process must call this.

    Raises:
        ProxyByteError: if it was made under another config, or on other data.
    """
    found = CheckpointFolder(config.output, config.checkpoint.keep).latest(world)
    if found is None:
        return None
    check_resumable(config, found[1].config, config.output)
    if found[1].data != data.fingerprint:
        raise ProxyByteError(
            f"{config.data} is not the data that the run in {config.output} began with (or an earlier version of "
            "this program began it): restore the data, or choose another output folder"
        )
    return found


def is_finished(config: TrainConfig, data: TrainingData, step: int) -> bool:
    """Whether a run that came to ``step`` has written all that it leaves behind."""
    output = config.output
    left = [output / MODEL_FOLDER / CONFIG_FILE]
    left += [output / COMPRESSOR_FOLDER] * (data.compressor is not None) + [output / PLOT_FILE] * config.log.plot
    return step == data.steps and all(path.exists() for path in left)


def what_next(config: TrainConfig, data: TrainingData) -> str:
    """The commands that a person would type after a finished run, on one line."""
    output = shlex.quote(str(config.output))
    export = f"proxybyte export {output} --format full{' --chat' if data.chat else ''} --out {output}/export"
    return f"next: {f'proxybyte report {output}, or ' if data.validation is not None else ''}{export}"


def _lessons(config: TrainConfig, stage: Stage, data: TrainingData, shape: ProxyByteConfig) -> Lessons | None:
    folder = config.teacher.model or config.model.checkpoint
    if not config.teacher.speaks or folder is None:
        return None
    if data.compressor is None or data.chat is not None:
        raise ProxyByteError("a teacher is for prepared data: conversations have no tokens of the base")
    wanted, found = config.teacher, find_model(folder)
    compressor = found.compressor or data.compressor
    device = stage.accelerator.device
    teacher = Teacher.load(found.model, compressor, wanted.weight, device, wanted.kind, wanted.temperature)
    if wanted.tokens.value and not teacher.codes_as(load_compressor(data.compressor)):
        raise ProxyByteError(
            f"the teacher in {folder} has another tokenizer than {config.data}, so that it can only tell bytes: leave "
            "teacher.tokens out"
        )
    if wanted.layers:
        base = teacher.model.config
        depth = min(base.num_hidden_layers, shape.num_hidden_layers)
        if max(wanted.layers) > depth or base.hidden_size != shape.hidden_size:
            raise ProxyByteError(
                f"teacher.layers is {list(wanted.layers)}, but the models have {depth} layers in common, of width "
                f"{base.hidden_size} in the teacher and {shape.hidden_size} here: name such layers, of equal width"
            )
    return Lessons(teacher, wanted.tokens, wanted.chunks, wanted.hidden, wanted.layers, data.steps)


def _validation(config: TrainConfig, stage: Stage, data: TrainingData, model: nn.Module) -> Validation | None:
    """What to score while the run goes on; nothing where there is no validation split."""
    texts, views = data.validation_documents(config.evaluation), config.evaluation.views
    if not texts:
        return None
    documents = TwoViews(texts, [])
    if View.COMPRESSED in views and data.compressor is not None:
        documents = code_documents(texts, load_compressor(data.compressor))
    heads = None
    if config.evaluation.transfer and data.compressor is not None and config.plan.schedule.shows_compressed:
        heads = heads_that_fit(texts, load_compressor(data.compressor), config.plan.row_length)
    scoring = Scoring(window=config.plan.row_capacity)
    return Validation(model, documents, views, stage, config.compute.compile, scoring, heads)


def start_trackers(run: Run, begun: int | None) -> None:
    """Open the trackers; TensorBoard forgets what was logged after step ``begun``, or all where the run begins."""
    if run.log.trackers:
        run.engine.accelerator.init_trackers(
            run.log.project,
            config={key: str(value) for key, value in flatten(run.recorded).items()},
            init_kwargs={"tensorboard": {"purge_step": 0 if begun is None else begun + 1}},
        )


def check_final(output: Path) -> None:
    """Refuse what :func:`write_final` would not replace.

    Raises:
        ProxyByteError: if one of its folders is there and another program wrote it, or into it.
    """
    for name in (MODEL_FOLDER, ADAPTER_FOLDER, COMPRESSOR_FOLDER):
        check_output(output / name, RUN_KIND)


def tidy_final(output: Path) -> None:
    """Clear away what a process left that was killed at its end, with the last checkpoint written."""
    CheckpointFolder(output, keep=1).clear_away()
    for name in (MODEL_FOLDER, ADAPTER_FOLDER, COMPRESSOR_FOLDER):
        tidy(output / name)


def write_final(config: TrainConfig, run: Run) -> Path:
    """Write the last checkpoint's model, the compressor it was trained with, and the picture; one process calls this.

    From the checkpoint and not from memory, for where the processes share the model none of them holds the whole.
    """
    output = config.output
    base = config.model.checkpoint
    last = CheckpointFolder(output, config.checkpoint.keep).of_step(run.steps)
    if config.trainable.adapter.kind is not AdapterKind.NONE and base is not None:
        with whole_folder(output / ADAPTER_FOLDER, RUN_KIND) as folder:
            write_model(last, folder)
        write_merged(base, output / ADAPTER_FOLDER, output / MODEL_FOLDER, kind=RUN_KIND, chat=run.data.chat)
    else:
        with whole_folder(output / MODEL_FOLDER, RUN_KIND) as folder:
            write_model(last, folder)
    if run.data.compressor is not None:
        with whole_folder(output / COMPRESSOR_FOLDER, RUN_KIND) as folder:
            shutil.copytree(run.data.compressor, folder, dirs_exist_ok=True)
    if config.log.plot:
        from .plots import draw  # matplotlib takes a second to import

        draw(MetricsLog(output).read(), output / PLOT_FILE, run.data.phases)
    return output / MODEL_FOLDER
