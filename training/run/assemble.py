"""Put a run together: what the loop calls, wired to data, model, processes and trackers."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from proxybyte import ProxyByteForCausalLM, build_tokenizer, save_tokenizer
from proxybyte.eval import Scoring
from proxybyte.flops import training_flops
from proxybyte.symbols import View

from ..compressors import load_compressor
from ..folders import publish
from .checkpoint import MODEL_FOLDER, OPTIMIZER_FILE, load_optimizer
from .config import TrainConfig
from .config_io import flatten
from .distributed import Stage, place
from .loop import Run
from .metrics import MetricsLog
from .model_source import make_model
from .optim import make_adamw
from .rows import RowShare
from .source import COMPRESSOR_FOLDER, TrainingData
from .step import Engine
from .validation import TwoViews, Validation, code_documents

PLOT_FILE = "loss.png"


@dataclass(frozen=True)
class ModelWriter:
    """Writes model folders from whole tensors.

    Attributes:
        model: the model, for its class and config.
    """

    model: ProxyByteForCausalLM

    def __call__(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        """Write what ``from_pretrained`` loads, with the tokenizer."""
        self.model.save_pretrained(folder, state_dict=weights)
        save_tokenizer(build_tokenizer(document_prefix=bool(self.model.config.document_prefix)), folder)


def assemble(config: TrainConfig, stage: Stage, data: TrainingData, checkpoint: Path | None) -> Run:
    """Build the model (from ``checkpoint`` if given), place it on the processes and wire the run.

    Raises:
        ProxyByteError: if the model does not fit the data or cannot be built.
    """
    model = make_model(config, data.num_codes, checkpoint / MODEL_FOLDER if checkpoint else None)
    flops = training_flops(model.config, config.plan.row_length, data.document_length)
    placed, optimizer = place(stage, model, config.compute, lambda m: make_adamw(m, config.optimizer))
    raw_model = stage.accelerator.unwrap_model(placed)
    if checkpoint:
        load_optimizer(raw_model, optimizer, checkpoint / OPTIMIZER_FILE)
    batch, world = config.batch, stage.world
    return Run(
        config=config,
        world=stage.world,
        engine=Engine(stage.accelerator, placed, optimizer, stage.precision, config.optimizer.clip, config.seed),
        data=data,
        share=RowShare(data.row_order(config), batch.rows_per_device, world.rank, world.size),
        flops_per_row=flops,
        raw_model=raw_model,
        save_model=ModelWriter(model),
        evaluate=_validation(config, stage, data, raw_model),
    )


def _validation(config: TrainConfig, stage: Stage, data: TrainingData, model: nn.Module) -> Validation | None:
    """What to score while the run goes on; nothing where there is no validation split."""
    texts, views = data.validation_documents(config.evaluation), config.evaluation.views
    if not texts:
        return None
    documents = TwoViews(texts, [])
    if View.COMPRESSED in views:
        documents = code_documents(texts, load_compressor(data.compressor))
    return Validation(model, documents, views, stage, config.compute.compile, Scoring(window=config.plan.row_capacity))


def start_trackers(run: Run, step: int) -> None:
    """Open the trackers; TensorBoard forgets what was logged after ``step``, from which the run goes on."""
    log_config = run.config.log
    if log_config.trackers:
        run.engine.accelerator.init_trackers(
            log_config.project,
            config={key: str(value) for key, value in flatten(run.config.model_dump(mode="json")).items()},
            init_kwargs={"tensorboard": {"purge_step": step + 1}},
        )


def write_final(run: Run, weights: dict[str, torch.Tensor]) -> Path:
    """Write the final model, the compressor it was trained with, and the picture; one process calls this."""
    output = run.config.output
    _replace(output / MODEL_FOLDER, lambda folder: run.save_model(folder, weights))
    _replace(output / COMPRESSOR_FOLDER, lambda folder: shutil.copytree(run.data.compressor, folder))
    if run.config.log.plot:
        from .plots import draw  # matplotlib takes a second to import

        draw(MetricsLog(output).read(), output / PLOT_FILE)
    return output / MODEL_FOLDER


def _replace(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder whole under a temporary name, then put it in place of what was there."""
    partial = folder.with_suffix(".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    write(partial)
    publish(partial, folder)
