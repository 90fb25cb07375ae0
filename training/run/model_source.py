"""The model of a run: new from a size, or going on from a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.checksums import WEIGHTS, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.faults import loading
from proxybyte.hub_configs import load_preset
from proxybyte.symbols import NUM_RAW_SYMBOLS

from ..memory import host_memory, refuse_beyond
from .config import AdapterKind, Attention, ModelConfig, TrainConfig
from .sharded import in_shards


def make_model(config: TrainConfig, num_codes: int, checkpoint: Path | None) -> ProxyByteForCausalLM:
    """The model in float32 on the CPU (bfloat16 under an adapter that asks for it), in training mode.

    Args:
        config: the run.
        num_codes: codes of the compressor.
        checkpoint: model folder of the run's own checkpoint, if it goes on from one. Where its weights are in shards,
            the model's are whatever they were made as: each process reads its part once the model is placed.

    Raises:
        ProxyByteError: if the preset or the folder is absent, or does not fit the data.
    """
    transformers_logging.disable_progress_bar()
    base = config.model.base
    folder = checkpoint or (base.model if base else None)
    # A model from a folder, too, may get heads that it did not have.
    torch.manual_seed(config.seed)
    model = _load(folder, config) if folder else _new(config, num_codes)
    check_fit(config, model.config, num_codes, folder)
    if config.compute.activation_checkpointing:
        model.activation_checkpointing_enable()
    return model.train()


def check_fit(config: TrainConfig, shape: ProxyByteConfig, num_codes: int, folder: Path | None) -> None:
    """Refuse a model that does not fit the data.

    Raises:
        ProxyByteError: if it lacks symbols of the compressor, or its documents open otherwise.
    """
    rows = int(shape.vocab_size)
    if rows < NUM_RAW_SYMBOLS + num_codes:
        raise ProxyByteError(
            f"the model in {folder} has {rows} symbols, but the compressor of {config.data} needs "
            f"{NUM_RAW_SYMBOLS + num_codes}: prepare the data with the compressor that the model was trained with"
        )
    if shape.document_opening != config.plan.document_opening:
        raise ProxyByteError(
            f"the model in {folder} was trained on documents that open with {shape.document_opening}: "
            f"set plan.document_opening='{shape.document_opening}'"
        )


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
    with _named(_what(asked)):
        return ProxyByteConfig(
            backbone_config=backbone,
            num_compressed_symbols=num_codes,
            document_opening=config.plan.document_opening.value,
            **asked.heads,
        )


def _what(asked: ModelConfig) -> str:
    return f"preset {asked.preset}" if asked.preset else "model.backbone_config"


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Say of a configuration that makes no model that it is the one to mend: Transformers fails in any way on it."""
    try:
        yield
    except ProxyByteError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[-1].strip() or "no reason given"
        raise ProxyByteError(f"{what} makes no model: {reason} ({type(error).__name__})") from error


def check_model(config: TrainConfig, shape: ProxyByteConfig, what: str) -> ProxyByteForCausalLM:
    """Refuse a model that cannot be built, or whose training this machine cannot hold, before anything is laid out.

    Returns the model without storage.

    Weights, and on a CPU also gradients and AdamW's two moments, lie in main memory in float32.

    Raises:
        ProxyByteError: saying what is wrong with the shape, or both sizes.
    """
    backbone = shape.backbone_config
    heads, kv_heads = (getattr(backbone, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    if heads and kv_heads and heads % kv_heads:
        raise ProxyByteError(
            f"{what} makes no model: num_attention_heads ({heads}) is no multiple of num_key_value_heads ({kv_heads})"
        )
    with _named(what), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    weights = sum(weight.numel() for weight in model.parameters())
    on_cpu = config.compute.device == "cpu" or not torch.accelerator.is_available()
    whole = config.trainable.adapter.kind is AdapterKind.NONE and on_cpu
    size = getattr(torch, config.trainable.adapter.frozen.value).itemsize + (12 if whole else 0)
    refuse_beyond(
        host_memory(), weights * size, f"training {what} ({weights:,} weights)", "take a smaller one, or fewer heads"
    )
    return model


def model_shape(config: TrainConfig, num_codes: int, folder: Path | None) -> tuple[ProxyByteConfig, str]:
    """The configuration of a run's model, and what it comes from, for messages.

    Args:
        config: the run.
        num_codes: codes of the compressor.
        folder: whose model it goes on from; ``None`` for a new one.

    Raises:
        ProxyByteError: if the preset or the folder is absent, or cannot be read.
    """
    if folder is None:
        return new_config(config, num_codes), _what(config.model)
    with _in_our_words(folder, config.model.attention):
        _check_heads(folder, config.model.heads)
        return ProxyByteConfig.from_pretrained(folder, **config.model.heads), f"the model in {folder}"


def _new(config: TrainConfig, num_codes: int) -> ProxyByteForCausalLM:
    return _made(config, *model_shape(config, num_codes, None))


def _made(config: TrainConfig, shape: ProxyByteConfig, what: str) -> ProxyByteForCausalLM:
    check_model(config, shape, what)
    torch.manual_seed(config.seed)
    with _named(what):
        return AutoModelForCausalLM.from_config(
            shape, dtype=torch.float32, attn_implementation=config.model.attention.value
        )


def _load(folder: Path, config: TrainConfig) -> ProxyByteForCausalLM:
    shape, what = model_shape(config, 0, folder)
    if in_shards(folder):
        return _made(config, shape, what)
    verify_folder(folder, WEIGHTS)
    check_model(config, shape, what)
    with _in_our_words(folder, config.model.attention):
        return ProxyByteForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, config.trainable.adapter.frozen.value),
            attn_implementation=config.model.attention.value,
            **config.model.heads,
        )


@contextmanager
def _in_our_words(folder: Path, attention: Attention) -> Iterator[None]:
    """As :func:`loading`; our own errors name the folder, and a refused implementation of attention its setting."""
    try:
        with loading(folder, "model"):
            yield
    except ProxyByteError as error:
        if "does not support an attention implementation" in str(error):
            raise ProxyByteError(
                f"the model in {folder} does not run with model.attention={attention}: set model.attention=eager"
            ) from error
        if str(folder) in str(error):
            raise
        raise ProxyByteError(f"cannot load the model in {folder}: {error}") from error


def _check_heads(folder: Path, asked: dict[str, Any]) -> None:
    """Refuse another number of heads than the model has, unless it has none yet."""
    found = ProxyByteConfig.from_pretrained(folder)
    for name, none in (("num_pred_heads", 1), ("num_raw_pred_heads", 0)):
        there = getattr(found, name)
        if asked.get(name, there) != there and there != none:
            raise ProxyByteError(
                f"the model in {folder} has {name}={there}: leave model.{name} out, heads are only added to none"
            )
