"""Checkpoints in the published EvaByte layout, to our layout and back, one weight file at a time.

The decoder's parameters have the same names and shapes in both. The layouts differ in ``config.json`` and in the head:
EvaByte's ``lm_head.weight`` stacks one block of vocabulary rows for each predicted position, the next byte first (the
6.5B models: 8 blocks of 320 rows). The first block is our ``lm_head.weight``, the others are our ``pred_heads.weight``
in the same order.

EvaByte's prompts open with ``<bos>``, not ``<raw>``, and its documents have no sentinels: the configuration's
``document_opening`` says so, and the tokenizer that is written beside it. A checkpoint of that layout that was trained
on sentinels opens with ``<bos><raw>`` or ``<raw>``, which nothing in its folder tells: say it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from proxybyte import EvaConfig, EvaModel, ProxyByteConfig
from proxybyte.checksums import WEIGHTS, digest_of_input, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.folders import is_made_of, locked_output, whole_folder, write_json
from proxybyte.hub_configs.checkpoint_settings import read_settings
from proxybyte.progress import Progress
from proxybyte.symbols import COMPRESSED_OFFSET, DocumentOpening
from proxybyte.tokenization_proxybyte import build_tokenizer, save_tokenizer

HEAD = "lm_head.weight"
MORE_HEADS = "pred_heads.weight"
KIND = "converted checkpoint"
"""Of output (``proxybyte.folders``)."""
_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_SAME_NAME = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "window_size",
    "chunk_size",
    "rms_norm_eps",
    "max_position_embeddings",
    "initializer_range",
)
_FIXED = {
    "norm_add_unit_offset": True,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "num_chunks": None,
}
"""Settings of EvaByte that our decoder has one value for."""
_Convert = Callable[[str, torch.Tensor], dict[str, torch.Tensor]]
"""From a weight of the source and its name to the weights that it becomes, by name."""


@dataclass(frozen=True)
class _Layout:
    """One side of a conversion.

    Attributes:
        config: of the decoder.
        heads: shapes of the heads' weights in the source, by name.
        settings: what ``config.json`` is to hold.
    """

    config: EvaConfig
    heads: Mapping[str, tuple[int, ...]]
    settings: dict[str, Any]


def from_evabyte(source: Path, out: Path, opening: DocumentOpening = DocumentOpening.BOS) -> Path:
    """Write the EvaByte checkpoint in ``source`` as a ProxyByte model in ``out``, whole or not at all.

    Args:
        source: its folder.
        out: folder to write; it gets the byte tokenizer too.
        opening: how the documents open that it was trained on.

    Returns:
        ``out``, which ``ProxyByteForCausalLM.from_pretrained`` loads.

    Raises:
        ProxyByteError: if a setting or a weight is not of that layout, or ``out`` exists.
    """
    with locked_output(out):
        return _from_evabyte(source, out, opening)


def _from_evabyte(source: Path, out: Path, opening: DocumentOpening) -> Path:
    layout = _ours(_read_settings(source, "evabyte"), source, opening)
    rows = layout.config.vocab_size

    def convert(name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        if name != HEAD or len(weight) == rows:
            return {name: weight}
        return {HEAD: weight[:rows].clone(), MORE_HEADS: weight[rows:].clone()}

    return _convert(source, out, layout, convert, build_tokenizer(opening=opening))


def to_evabyte(source: Path, out: Path) -> Path:
    """Write the ProxyByte model with an EVA backbone in ``source`` in the EvaByte layout, whole or not at all.

    Returns:
        ``out``; the published code files (``configuration_evabyte.py``, ...) are to be added to it.

    Raises:
        ProxyByteError: if the model has another backbone or raw heads, a weight is missing, or ``out`` exists.
    """
    with locked_output(out):
        return _to_evabyte(source, out)


def _to_evabyte(source: Path, out: Path) -> Path:
    settings = _read_settings(source, ProxyByteConfig.model_type)
    layout = _published(ProxyByteConfig.from_dict(settings), source)
    more = list(_find(source, MORE_HEADS))

    def convert(name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        if name == MORE_HEADS:
            return {}
        return {name: torch.cat([weight, *more]) if name == HEAD else weight}

    return _convert(source, out, layout, convert)


def _ours(settings: dict[str, Any], source: Path, opening: DocumentOpening) -> _Layout:
    for name, value in _FIXED.items():
        if settings.get(name, value) != value:
            raise ProxyByteError(f"{source / _CONFIG} sets {name} to {settings[name]!r}: only {value!r} is supported")
    heads, symbols = settings.get("num_pred_heads", 1), settings.get("vocab_size", 0) - COMPRESSED_OFFSET
    if symbols < 0:
        raise ProxyByteError(f"{source / _CONFIG} has a vocabulary of {symbols + COMPRESSED_OFFSET} rows: it takes 320")
    backbone = {name: settings[name] for name in _SAME_NAME if name in settings}
    rope = {"rope_type": "default", "rope_theta": settings.get("rope_theta", 10_000.0)}
    config = ProxyByteConfig(
        backbone_config={"model_type": EvaConfig.model_type, **backbone, "rope_parameters": rope},
        num_compressed_symbols=symbols,
        num_pred_heads=heads,
        document_opening=opening.value,
        bos_token_id=settings.get("bos_token_id", 1),
    )
    config.architectures = ["ProxyByteForCausalLM"]
    config.dtype = settings.get("torch_dtype", settings.get("dtype"))
    shapes = {HEAD: (heads * config.vocab_size, config.hidden_size)}
    return _Layout(config.backbone_config, shapes, json.loads(config.to_json_string(use_diff=False)))


def _published(config: ProxyByteConfig, source: Path) -> _Layout:
    decoder = config.backbone_config
    if not isinstance(decoder, EvaConfig) or config.tie_word_embeddings:
        raise ProxyByteError(f"{source} is no model with an EVA backbone and a head of its own: nothing else fits")
    rope = decoder.rope_parameters or {}
    if rope.get("rope_type", "default") != "default":
        raise ProxyByteError(f"{source / _CONFIG} scales RoPE, which is not supported: set rope_type to 'default'")
    if config.num_raw_pred_heads:
        raise ProxyByteError(f"{source} has {config.num_raw_pred_heads} raw heads: this layout holds full ones alone")
    settings = {
        "architectures": ["EvaByteForCausalLM"],
        "model_type": "evabyte",
        "vocab_size": decoder.vocab_size,
        **{name: getattr(decoder, name) for name in _SAME_NAME},
        **_FIXED,
        "rope_theta": rope["rope_theta"],
        "num_pred_heads": config.num_pred_heads,
        "pad_token_id": decoder.pad_token_id,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "use_cache": True,
        "mixedp_attn": True,
        "fp32_skip_add": True,
        "fp32_logits": True,
        "fp32_ln": True,
        "torch_dtype": None if config.dtype is None else str(config.dtype).removeprefix("torch."),
    }
    shapes = {HEAD: (decoder.vocab_size, decoder.hidden_size)}
    if config.num_pred_heads > 1:
        shapes[MORE_HEADS] = ((config.num_pred_heads - 1) * decoder.vocab_size, decoder.hidden_size)
    return _Layout(decoder, shapes, settings)


def _read_settings(folder: Path, model_type: str) -> dict[str, Any]:
    settings = read_settings(folder)
    if settings.get("model_type") != model_type:
        raise ProxyByteError(
            f"{folder / _CONFIG} is of a {settings.get('model_type')!r} model: this takes {model_type!r}"
        )
    return settings


def _find(folder: Path, name: str) -> Iterator[torch.Tensor]:
    """The weight called ``name``, if a file of the checkpoint holds it."""
    for file in _files(folder):
        yield from (weight for _, weight in _weights(folder / file, name))


def _weights(path: Path, only: str | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of one file, one at a time; of all, or of one name."""
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                if only in (None, name):
                    yield name, file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise ProxyByteError(f"{path} cannot be read: fetch it again ({error})") from error


def _files(folder: Path) -> list[str]:
    """The weight files of a checkpoint."""
    if (folder / _INDEX).exists():
        try:
            return sorted(set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values()))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ProxyByteError(f"{folder / _INDEX} cannot be read: fetch it again ({error})") from error
    if (folder / _SINGLE).exists():
        return [_SINGLE]
    raise ProxyByteError(f"{folder} has neither {_SINGLE} nor {_INDEX}: give a checkpoint in safetensors format")


def _shapes(layout: _Layout) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the source."""
    with torch.device("meta"):
        decoder = EvaModel(layout.config)
    shapes = {f"model.{name}": tuple(weight.shape) for name, weight in decoder.state_dict().items()}
    return {**shapes, **layout.heads}


def _convert(
    source: Path, out: Path, layout: _Layout, convert: _Convert, tokenizer: PreTrainedTokenizerFast | None = None
) -> Path:
    made_of = digest_of_input(source, json.dumps(layout.settings, sort_keys=True))
    if out.exists():
        if is_made_of(out, KIND, made_of):
            return out
        raise ProxyByteError(f"{out} exists: choose another folder or remove it")
    with whole_folder(out, KIND, made_of) as folder:
        _write(source, folder, layout, convert)
        if tokenizer is not None:
            save_tokenizer(tokenizer, folder)
    return out


def _write(source: Path, folder: Path, layout: _Layout, convert: _Convert) -> None:
    verify_folder(source, WEIGHTS)
    missing, places, size = _shapes(layout), {}, 0
    for file in Progress(_files(source), desc="weights", delay=2):
        weights: dict[str, torch.Tensor] = {}
        for name, weight in _weights(source / file):
            _check(source / file, name, weight, missing.pop(name, None))
            weights.update(convert(name, weight))
        if not weights:
            continue
        size += sum(weight.nbytes for weight in weights.values())
        save_file(weights, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(weights, file))
    if missing:
        raise ProxyByteError(f"{source} lacks the weight {min(missing)}: fetch the checkpoint again")
    if (source / _INDEX).exists():
        write_json(folder / _INDEX, {"metadata": {"total_size": size}, "weight_map": places})
    write_json(folder / _CONFIG, layout.settings)


def _check(path: Path, name: str, weight: torch.Tensor, shape: tuple[int, ...] | None) -> None:
    if shape is None:
        raise ProxyByteError(f"{path} holds {name}, which this layout does not know or holds once only")
    found = tuple(weight.shape)
    if found != shape:
        raise ProxyByteError(f"{path}: {name} has shape {found}, not {shape}: config.json is of another checkpoint")
