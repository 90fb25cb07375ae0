"""Put a run together: what the loop calls, wired to data, model, processes and trackers."""

import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, build_tokenizer, save_tokenizer
from proxybyte.artefacts import CHAT_FOLDER, COMPRESSOR_FOLDER, CONFIG_FILE, MODEL_FOLDER, find_model
from proxybyte.errors import ProxyByteError
from proxybyte.eval import Scoring
from proxybyte.folders import check_output, whole_folder
from proxybyte.model_loading import chat_tokenizer_in
from proxybyte.symbols import View

from ..compressors import load_compressor
from .adapters import Adapter, write_merged
from .checkpoint import CheckpointFolder, RunState, model_in, restore, write_model
from .config import AdapterKind, FrozenWeights, Precision, TrainConfig
from .config_io import check_resumable, flatten
from .cross_view import CrossView
from .distributed import ALONE, Stage, World, place
from .levers import Levers
from .loop import Run
from .metrics import MetricsLog
from .model_source import make_model
from .optim import make_adamw
from .row_flops import row_flops
from .rows import RowShare
from .sharded import is_sharded
from .source import TrainingData
from .spelled import SpelledRows, spelling_table
from .stages import RowsFirst
from .step import Engine
from .suffixes import SuffixSchedule
from .teacher import Lessons, Teacher
from .validation import TwoViews, Validation, code_documents

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
    model = make_model(config, data.num_codes, None if adapted else saved)
    adapter = Adapter.attach(model, wanted, config.seed, saved) if adapted else None
    suffixes = SuffixSchedule.of(config, model, data)
    table = spelling_table(config, data)
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
    engine = Engine(
        accelerator=stage.accelerator,
        model=placed,
        optimizer=optimizer,
        precision=stage.precision,
        clip=config.optimizer.clip,
        seed=config.seed,
        rows_first=rows_first,
        levers=levers,
        lessons=_lessons(config, stage, data, raw_model.config),
        suffixes=suffixes,
        raw_rows_only=config.raw_rows_only,
    )
    batch, world = config.batch, stage.world
    return Run(
        config=config,
        world=stage.world,
        engine=engine,
        data=data,
        share=RowShare(data.row_order(config), batch.rows_per_device, world.rank, world.size),
        flops_per_row=row_flops(config, model.config, data),
        raw_model=raw_model,
        save_model=adapter or ModelWriter(model, _chat_tokenizer(config, data)),
        evaluate=_validation(config, stage, data, raw_model),
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


def _chat_tokenizer(config: TrainConfig, data: TrainingData) -> PreTrainedTokenizerFast | None:
    """What wrote the conversations, else what the model that the run starts from carries."""
    base = config.model.base
    return data.chat or (chat_tokenizer_in(base.model) if base else None)


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
    return Validation(model, documents, views, stage, config.compute.compile, Scoring(window=config.plan.row_capacity))


def start_trackers(run: Run, begun: int | None) -> None:
    """Open the trackers; TensorBoard forgets what was logged after step ``begun``, or all where the run begins."""
    log_config = run.config.log
    if log_config.trackers:
        run.engine.accelerator.init_trackers(
            log_config.project,
            config={key: str(value) for key, value in flatten(run.config.model_dump(mode="json")).items()},
            init_kwargs={"tensorboard": {"purge_step": 0 if begun is None else begun + 1}},
        )


def check_final(output: Path) -> None:
    """Refuse what :func:`write_final` would not replace.

    Raises:
        ProxyByteError: if one of its folders is there and another program wrote it, or into it.
    """
    for name in (MODEL_FOLDER, ADAPTER_FOLDER, COMPRESSOR_FOLDER):
        check_output(output / name, RUN_KIND)


def write_final(run: Run) -> Path:
    """Write the last checkpoint's model, the compressor it was trained with, and the picture; one process calls this.

    From the checkpoint and not from memory, for where the processes share the model none of them holds the whole.
    """
    output = run.config.output
    base = run.config.model.checkpoint
    last = CheckpointFolder(output, run.config.checkpoint.keep).of_step(run.steps)
    if run.config.trainable.adapter.kind is not AdapterKind.NONE and base is not None:
        with whole_folder(output / ADAPTER_FOLDER, RUN_KIND) as folder:
            write_model(last, folder)
        write_merged(base, output / ADAPTER_FOLDER, output / MODEL_FOLDER, kind=RUN_KIND, chat=run.data.chat)
    else:
        with whole_folder(output / MODEL_FOLDER, RUN_KIND) as folder:
            write_model(last, folder)
    if run.data.compressor is not None:
        with whole_folder(output / COMPRESSOR_FOLDER, RUN_KIND) as folder:
            shutil.copytree(run.data.compressor, folder, dirs_exist_ok=True)
    if run.config.log.plot:
        from .plots import draw  # matplotlib takes a second to import

        draw(MetricsLog(output).read(), output / PLOT_FILE, run.data.phases)
    return output / MODEL_FOLDER
