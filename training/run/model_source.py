"""The model of a run: new from a size, or going on from a folder."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.checksums import WEIGHTS, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs import load_preset
from proxybyte.symbols import NUM_RAW_SYMBOLS

from .config import TrainConfig


def make_model(config: TrainConfig, num_codes: int, checkpoint: Path | None) -> ProxyByteForCausalLM:
    """The model in float32 on the CPU (bfloat16 under an adapter that asks for it), in training mode.

    Args:
        config: the run.
        num_codes: codes of the compressor.
        checkpoint: model folder of the run's own checkpoint, if it goes on from one.

    Raises:
        ProxyByteError: if the preset or the folder is absent, or does not fit the data.
    """
    transformers_logging.disable_progress_bar()
    folder = checkpoint or config.model.checkpoint
    # A model from a folder, too, may get heads that it did not have.
    torch.manual_seed(config.seed)
    model = _load(folder, config) if folder else _new(config, num_codes)
    rows = int(model.config.vocab_size)
    if rows < NUM_RAW_SYMBOLS + num_codes:
        raise ProxyByteError(
            f"the model in {folder} has {rows} symbols, but the compressor of {config.data} needs "
            f"{NUM_RAW_SYMBOLS + num_codes}: prepare the data with the compressor that the model was trained with"
        )
    if bool(model.config.document_prefix) != config.plan.document_prefix:
        raise ProxyByteError(
            f"the model in {folder} was trained with document_prefix={model.config.document_prefix}: "
            f"set plan.document_prefix={model.config.document_prefix}"
        )
    if config.compute.activation_checkpointing:
        model.activation_checkpointing_enable()
    return model.train()


def new_config(config: TrainConfig, num_codes: int) -> ProxyByteConfig:
    """Configuration of a new model.

    Raises:
        ProxyByteError: if the preset is absent, or the decoder is none that ProxyByte can train.
    """
    asked = config.model
    if asked.preset:
        # A model knows the positions that it was trained on: its config must not promise more.
        backbone = {**load_preset(asked.preset).backbone_config, "max_position_embeddings": config.plan.row_length}
    else:
        backbone = dict(asked.backbone_config or {})
    return ProxyByteConfig(
        backbone_config=backbone,
        num_compressed_symbols=num_codes,
        document_prefix=config.plan.document_prefix,
        **asked.heads,
    )


def _new(config: TrainConfig, num_codes: int) -> ProxyByteForCausalLM:
    torch.manual_seed(config.seed)
    return AutoModelForCausalLM.from_config(
        new_config(config, num_codes), dtype=torch.float32, attn_implementation=config.model.attention.value
    )


def _load(folder: Path, config: TrainConfig) -> ProxyByteForCausalLM:
    if not (folder / "config.json").is_file():
        raise ProxyByteError(f"{folder} is no model folder: it has no config.json")
    verify_folder(folder, WEIGHTS)
    try:
        _check_heads(folder, config.model.heads)
        return ProxyByteForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, config.trainable.adapter.frozen.value),
            attn_implementation=config.model.attention.value,
            **config.model.heads,
        )
    except (OSError, ValueError, RuntimeError) as error:
        if "does not support an attention implementation" in str(error):
            raise ProxyByteError(
                f"the model in {folder} does not run with model.attention={config.model.attention}: set "
                "model.attention=eager"
            ) from error
        raise ProxyByteError(f"the model in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error


def _check_heads(folder: Path, asked: dict[str, Any]) -> None:
    """Refuse another number of heads than the model has, unless it has none yet."""
    found = ProxyByteConfig.from_pretrained(folder)
    for name, none in (("num_pred_heads", 1), ("num_raw_pred_heads", 0)):
        there = getattr(found, name)
        if asked.get(name, there) != there and there != none:
            raise ProxyByteError(
                f"the model in {folder} has {name}={there}: leave model.{name} out, heads are only added to none"
            )
