"""Write a trained model as a folder for the Hub, in one of two formats.

*native*: the rows of the compressed symbols are cut off (raw text never uses them, and the logits of the other 320
symbols do not depend on them), and so are the heads that predict further; what is left is a plain checkpoint of the
backbone's own family, for which no remote code is needed. *full*: our class with its code files and the compressor.
"""

import copy
import json
import logging
import shutil
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

import proxybyte
from proxybyte.byte_codec import encode_bytes
from proxybyte.checksums import digest_of_input
from proxybyte.errors import ProxyByteError
from proxybyte.faults import loading
from proxybyte.folders import is_made_of, locked_output, whole_folder, write_json
from proxybyte.hub_configs.model_card import write_model_card
from proxybyte.hub_configs.model_folder import (
    CHAT_FOLDER,
    COMPRESSOR_FOLDER,
    CONFIG_FILE,
    ModelFolder,
    context_length,
    find_model,
    load_causal_model,
    load_config,
)
from proxybyte.symbols import (
    NUM_RAW_SYMBOLS,
    NUM_SPECIALS,
    DocumentOpening,
    Special,
    document_opening,
    special_spelling,
)
from proxybyte.tokenization_proxybyte import build_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    from proxybyte import ProxyByteForCausalLM

NATIVE_FAMILIES = frozenset(
    {
        "exaone4",
        "gemma",
        "gemma2",
        "gemma3_text",
        "granite",
        "llama",
        "mistral",
        "mixtral",
        "olmo2",
        "olmo3",
        "phi3",
        "qwen3",
        "qwen3_moe",
        "seed_oss",
        "smollm3",
        "stablelm",
        "starcoder2",
    }
)
"""Families whose plain checkpoints are tested to give our logits and to keep a byte tokenizer as it is."""
log = logging.getLogger(__name__)

_CUT = ("model.embed_tokens.weight", "lm_head.weight")
_MORE_HEADS = ("pred_heads.weight", "raw_pred_heads.weight")
_PROBE = "".join(map(chr, range(0x250))) + "A\u030a \ufb01 \u4e16\u754c \U0001f642 \r\n\t  x"


KIND = "export"
"""Of output (``proxybyte.folders``)."""


class ExportFormat(StrEnum):
    """What an exported folder holds; see the module's text."""

    NATIVE = "native"
    FULL = "full"


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        format: native or full.
        chat: for a checkpoint trained on chats: the chat kind of tokenizer, and ``<|eot_id|>`` ends generation.
        force: replace what is at the destination.
    """

    format: ExportFormat
    chat: bool = False
    force: bool = False


def export_model(source: Path, out: Path, options: ExportOptions) -> Path:
    """Export the model in ``source`` (a run or a model folder) to ``out``, whole or not at all.

    Before the folder takes its name it is loaded back as a stranger would, and its tokenizer and logits are compared.

    Returns:
        ``out``.

    Raises:
        ProxyByteError: if there is no model, it cannot be exported in this format, or ``out`` exists.
    """
    with locked_output(out):
        return _export(source, out, options)


def _export(source: Path, out: Path, options: ExportOptions) -> Path:
    found = find_model(source)
    made_of = _made_of(found, out, options)
    if out.exists() and not options.force:
        if is_made_of(out, KIND, made_of):
            log.info("%s is up to date", out)
            return out
        raise ProxyByteError(f"{out} exists: choose another folder or pass --force to replace it")
    if found.model.resolve().is_relative_to(out.resolve()):
        raise ProxyByteError(f"{out} holds the model that is to be exported: choose another folder")
    config = load_config(found.model)
    if config.model_type != "proxybyte":
        raise ProxyByteError(
            f"{found.model} is a plain {config.model_type!r} checkpoint already: there is nothing to export"
        )
    if options.format is ExportFormat.NATIVE:
        _check_family(config.backbone_config.model_type)
    with whole_folder(out, KIND, made_of) as folder:
        _write(found, folder, out.name, options)
    return out


def _made_of(found: ModelFolder, out: Path, options: ExportOptions) -> str:
    """Digest of all that an export depends on: the model's folder, the options, and the code."""
    here = Path(__file__).parent
    code = sorted([*here.glob("*.py"), *here.glob("templates/*"), *Path(proxybyte.__file__).parent.glob("*.py")])
    inputs = [found.model, *([found.compressor] if found.compressor else [])]
    return digest_of_input(out.name, repr(replace(options, force=False)), *inputs, *code)


def _check_family(family: str) -> None:
    if family == "qwen2":
        raise ProxyByteError(
            "a plain 'qwen2' checkpoint would change bytes, because AutoTokenizer puts that family's own tokenizer in "
            "place of ours: pass --format full (or train with backbone 'qwen3')"
        )
    if family not in NATIVE_FAMILIES:
        raise ProxyByteError(
            f"--format native is not offered for {family!r}, only for {', '.join(sorted(NATIVE_FAMILIES))}: "
            "pass --format full"
        )


def _write(found: ModelFolder, folder: Path, name: str, options: ExportOptions) -> None:
    """Fill ``folder`` and check what is in it."""
    model = cast("ProxyByteForCausalLM", load_causal_model(found.model))
    tokenizer = _tokenizer(found, model, options.chat)
    save_tokenizer(tokenizer, folder)
    model.generation_config = _generation_config(options, document_opening(model.config))
    probe = torch.tensor([[*document_opening(model.config), *encode_bytes(_PROBE.encode()[:64]).tolist()]])
    before = _raw_logits(model, probe)
    if options.format is ExportFormat.NATIVE:
        _save_native(model, folder)
    else:
        _save_full(model, folder)
        if found.compressor is not None:
            shutil.copytree(found.compressor, folder / COMPRESSOR_FOLDER)
    remote_code = options.format is ExportFormat.FULL
    write_model_card(model, folder, name=name, remote_code=remote_code, chat=options.chat)
    del model
    _check_tokenizer(folder, tokenizer("")["input_ids"])
    _check_logits(folder, probe, before)


def _tokenizer(found: ModelFolder, model: "ProxyByteForCausalLM", chat: bool) -> "PreTrainedTokenizerFast":
    """A new one, or for chats the one that the model carries, whose template it was trained with."""
    from transformers import AutoTokenizer

    if chat and (found.model / CHAT_FOLDER / "tokenizer.json").is_file():
        with loading(found.model / CHAT_FOLDER, "chat tokenizer"):
            return AutoTokenizer.from_pretrained(found.model / CHAT_FOLDER)  # type: ignore[return-value]
    return build_tokenizer(
        opening=model.config.document_opening, chat=chat, model_max_length=context_length(model.config)
    )


def _save_native(model: "ProxyByteForCausalLM", folder: Path) -> None:
    """Save the raw rows under the backbone's own causal model."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config.backbone_config)
    config.vocab_size = NUM_RAW_SYMBOLS
    config.dtype = model.dtype
    if model.config.document_opening != DocumentOpening.RAW:
        # A plain configuration keeps what it does not know, and who scores the folder must know how it opens.
        config.document_opening = model.config.document_opening
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config)
    weights = {
        name: tensor[:NUM_RAW_SYMBOLS].clone() if name in _CUT else tensor
        for name, tensor in model.state_dict().items()
        if name not in _MORE_HEADS
    }
    if dropped := model.config.num_pred_heads - 1 + model.config.num_raw_pred_heads:
        log.warning(
            "%d heads that predict further are left out, for which a plain %r has no place: --format full keeps them",
            dropped,
            config.model_type,
        )
    if odd := sorted(weights.keys() ^ plain.state_dict().keys()):
        raise ProxyByteError(f"a plain {config.model_type!r} cannot hold this model ({odd[0]}): pass --format full")
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder, state_dict=weights)
    _add_older_names(folder / CONFIG_FILE)


def _add_older_names(path: Path) -> None:
    """Say in Transformers 4's words too what 5 renamed: 4 would take its own default for a base it does not find."""
    config = json.loads(path.read_bytes())
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        config["rope_scaling"] = None if scaling.get("rope_type") == "default" else scaling
    config["torch_dtype"] = config.get("dtype")
    write_json(path, config)


def _save_full(model: "ProxyByteForCausalLM", folder: Path) -> None:
    """Save our class with the code files; ``save_pretrained`` names only the saved class in ``auto_map``."""
    model.save_pretrained(folder)
    path = folder / CONFIG_FILE
    config = json.loads(path.read_bytes())
    config["auto_map"]["AutoModel"] = config["auto_map"]["AutoModelForCausalLM"]
    write_json(path, config)


def _generation_config(options: ExportOptions, opening: tuple[int, ...]) -> "GenerationConfig":
    """Where generation ends, and for a plain checkpoint that no other special comes out (our class sees to it)."""
    from transformers import GenerationConfig

    ends = [int(Special.EOS), int(Special.RAW_CLOSE), *([int(Special.END_OF_TURN)] if options.chat else [])]
    stray = [symbol for symbol in range(NUM_SPECIALS) if symbol not in ends]
    return GenerationConfig(
        bos_token_id=opening[-1],
        eos_token_id=ends,
        pad_token_id=int(Special.PAD),
        suppress_tokens=stray if options.format is ExportFormat.NATIVE else None,
    )


def _raw_logits(model: "torch.nn.Module", probe: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=probe, use_cache=False).logits[..., :NUM_RAW_SYMBOLS].float()


def _check_tokenizer(folder: Path, opening: list[int]) -> None:
    from transformers import AutoTokenizer

    # No limit, or Transformers warns that the probe is longer than a small model's context.
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, model_max_length=None)
    probe = _PROBE if tokenizer.chat_template else _PROBE + special_spelling(Special.RAW_CLOSE)
    if tokenizer(probe)["input_ids"] != [*opening, *encode_bytes(probe.encode()).tolist()]:
        raise ProxyByteError(
            f"AutoTokenizer of this Transformers loads {type(tokenizer).__name__} for the exported folder, which "
            "changes bytes: pass --format full"
        )


def _check_logits(folder: Path, probe: torch.Tensor, before: torch.Tensor) -> None:
    model = load_causal_model(folder)
    tolerance = 1e-5 if model.dtype in (torch.float32, torch.float64) else 2e-2
    worst = (_raw_logits(model, probe) - before).abs().max() / before.abs().max().clamp(min=1e-30)
    if not worst <= tolerance:
        raise ProxyByteError(
            f"the exported model's logits differ by {worst:.1e}, relative to the largest: please report"
        )
