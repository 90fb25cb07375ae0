"""Write a trained model as a folder for the Hub, in one of three formats.

*native*: the rows of the compressed symbols are cut off (raw text never uses them, and the logits of the other 320
symbols do not depend on them), and so are the heads that predict further; what is left is a plain checkpoint of the
backbone's own family, for which no remote code is needed; heads that predict further lie beside it, with a
``custom_generate`` that drafts with them. *full*: our class with its code files and the compressor. *gguf*: the native
model as one file for llama.cpp. Native and gguf also take a plain byte model, such as an export that was saved again.
"""

import copy
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file

import proxybyte
from proxybyte.artefacts import COMPRESSOR_FOLDER, CONFIG_FILE, HEADS_FILE, TOKENIZER_FILE, ModelFolder, find_model
from proxybyte.byte_codec import encode_bytes
from proxybyte.checksums import digest_of_input
from proxybyte.errors import ProxyByteError, WrongOption
from proxybyte.folders import is_made_of, locked_output, whole_folder, write_json
from proxybyte.hub_configs.card_facts import ExportFacts, write_facts
from proxybyte.hub_configs.gguf_file import GgufText, GgufType, check_gguf_family, write_gguf
from proxybyte.hub_configs.licences import copy_licence
from proxybyte.hub_configs.model_card import Card, Told, write_card
from proxybyte.model_loading import (
    chat_tokenizer_in,
    context_length,
    load_causal_model,
    load_config,
    load_tokenizer,
)
from proxybyte.provenance import copy_provenance, read_provenance
from proxybyte.symbols import NUM_RAW_SYMBOLS, NUM_SPECIALS, DocumentOpening, Special, special_spelling
from proxybyte.tokenization_proxybyte import build_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

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

_PROBE = "".join(map(chr, range(0x250))) + "A\u030a \ufb01 \u4e16\u754c \U0001f642 \r\n\t  x"


log = logging.getLogger(__name__)

KIND = "export"
"""Of output (``proxybyte.folders``)."""


class ExportFormat(StrEnum):
    """What an exported folder holds; see the module's text."""

    NATIVE = "native"
    FULL = "full"
    GGUF = "gguf"


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        format: native, full or gguf.
        chat: for a checkpoint trained on chats: the chat kind of tokenizer, and ``<|eot_id|>`` ends generation.
        force: replace what is at the destination.
        gguf_type: how a GGUF file stores the matrices.
        license: of the weights, for the card.
        shard_bytes: largest file of weights; that of Transformers if absent.
    """

    format: ExportFormat
    chat: bool = False
    force: bool = False
    gguf_type: GgufType = GgufType.F16
    license: str | None = None
    shard_bytes: int | None = None


def export_model(source: str | Path, out: Path, options: ExportOptions) -> Path:
    """Export the model in ``source`` (:func:`~proxybyte.artefacts.find_model`) to ``out``, whole or not at all.

    Before the folder takes its name it is loaded back as a stranger would, and its tokenizer and logits are compared.

    Returns:
        ``out``.

    Raises:
        ProxyByteError: if there is no model, it cannot be exported in this format, or ``out`` exists.
    """
    with locked_output(out):
        return _export(source, out, options)


def _export(source: str | Path, out: Path, options: ExportOptions) -> Path:
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
    _check_source(found.model, config, options.format)
    with whole_folder(out, KIND, made_of) as folder:
        _write(found, folder, out.name, options)
    return out


def _made_of(found: ModelFolder, out: Path, options: ExportOptions) -> str:
    """Digest of all that an export depends on: the model's folder, the options, and the code."""
    here = Path(__file__).parent
    code = sorted([*here.glob("*.py"), *here.glob("templates/*"), *Path(proxybyte.__file__).parent.glob("*.py")])
    inputs = [found.model, *([found.compressor] if found.compressor else [])]
    return digest_of_input(out.name, repr(replace(options, force=False)), *inputs, *code)


def _check_source(folder: Path, config: "PreTrainedConfig", form: ExportFormat) -> None:
    """Refuse what has no such export."""
    ours = config.model_type == "proxybyte"
    if not ours and (form is ExportFormat.FULL or getattr(config, "vocab_size", None) != NUM_RAW_SYMBOLS):
        raise ProxyByteError(
            f"{folder} is a plain {config.model_type!r} checkpoint already: "
            + ("there is nothing to export in full" if form is ExportFormat.FULL else "but not one of 320 byte symbols")
        )
    plain = config.backbone_config if ours else config
    if ours and form is not ExportFormat.FULL:
        _check_suffix_rows(folder, config)
    if form is ExportFormat.NATIVE:
        _check_family(plain.model_type)
    elif form is ExportFormat.GGUF:
        check_gguf_family(plain)


def _check_family(family: str) -> None:
    if family == "qwen2":
        raise ProxyByteError(
            "a plain 'qwen2' checkpoint would change bytes, because AutoTokenizer puts that family's own tokenizer in "
            "place of ours: pass --format full (or train with backbone 'qwen3')"
        )
    if family not in NATIVE_FAMILIES:
        offered = ", ".join(sorted(NATIVE_FAMILIES))
        raise WrongOption(f"format native is not offered for {family!r}, only for {offered}: export in full", "format")


def _check_suffix_rows(model: Path, config: "PreTrainedConfig") -> None:
    section = config.suffix_rows
    if section is not None and section.mix > 0:
        raise ProxyByteError(
            f"{model} reads bytes with suffix rows (suffix_rows.mix={section.mix:g}), for which a plain checkpoint has "
            "no place: pass --format full, or train until they are faded out"
        )


def _write(found: ModelFolder, folder: Path, name: str, options: ExportOptions) -> None:
    """Fill ``folder`` and check what is in it."""
    model = load_causal_model(found.model)
    tokenizer = _tokenizer(found, model, options.chat)
    opening = tokenizer("")["input_ids"]
    chat = tokenizer.chat_template is not None
    model.generation_config = _generation_config(options.format, chat, opening)
    if options.format is ExportFormat.GGUF:
        plain = PlainModel.of(model, found.model)
        text = GgufText(name, tuple(opening), tokenizer.chat_template)
        write_gguf(plain.config, plain.weights, folder / f"{name}-{options.gguf_type}.gguf", options.gguf_type, text)
        _describe(found, folder, name, ExportFacts.of(model, folder, options.format, chat, opening), options)
        return
    save_tokenizer(tokenizer, folder)
    probe = torch.tensor([[*opening, *encode_bytes(_PROBE.encode()[:64]).tolist()]])
    before = _raw_logits(model, probe)
    shards = {} if options.shard_bytes is None else {"max_shard_size": options.shard_bytes}
    if options.format is ExportFormat.NATIVE:
        save_native(PlainModel.of(model, found.model), model.generation_config, folder, shards)
    else:
        _save_full(cast("ProxyByteForCausalLM", model), folder, shards)
        if found.compressor is not None:
            shutil.copytree(found.compressor, folder / COMPRESSOR_FOLDER)
    _describe(found, folder, name, ExportFacts.of(model, folder, options.format, chat, opening), options)
    del model
    _check_tokenizer(folder, opening)
    _check_logits(folder, probe, before)


def _describe(found: ModelFolder, folder: Path, name: str, facts: ExportFacts, options: ExportOptions) -> None:
    """Say what the folder is and where it comes from, in JSON and in its card."""
    copy_provenance(found.model, folder)
    write_facts(facts, folder)
    if facts.code:
        copy_licence(folder)
    write_card(Card(name, facts, read_provenance(folder), Told(license=options.license)), folder)


def _tokenizer(found: ModelFolder, model: "PreTrainedModel", chat: bool) -> "PreTrainedTokenizerFast":
    """A new one, or the one that the model carries: for chats with its template, and that of a plain model."""
    if model.config.model_type != "proxybyte" and (found.model / TOKENIZER_FILE).is_file():
        carried = load_tokenizer(found.model)
        if not chat or carried.chat_template is not None:
            return carried
    return (chat_tokenizer_in(found.model) if chat else None) or build_tokenizer(
        opening=getattr(model.config, "document_opening", DocumentOpening.RAW),
        chat=chat,
        model_max_length=context_length(model.config),
    )


def _save_full(model: "ProxyByteForCausalLM", folder: Path, shards: dict[str, Any]) -> None:
    """Save our class with the code files; ``save_pretrained`` names only the saved class in ``auto_map``."""
    model.save_pretrained(folder, **shards)
    path = folder / CONFIG_FILE
    config = json.loads(path.read_bytes())
    config["auto_map"]["AutoModel"] = config["auto_map"]["AutoModelForCausalLM"]
    write_json(path, config)


def _generation_config(form: ExportFormat, chat: bool, opening: Sequence[int]) -> "GenerationConfig":
    """Where generation ends, and for a plain checkpoint that no other special comes out (our class sees to it)."""
    from transformers import GenerationConfig

    ends = [int(Special.EOS), int(Special.RAW_CLOSE), *([int(Special.END_OF_TURN)] if chat else [])]
    stray = [symbol for symbol in range(NUM_SPECIALS) if symbol not in ends]
    return GenerationConfig(
        bos_token_id=opening[-1],
        eos_token_id=ends,
        pad_token_id=int(Special.PAD),
        suppress_tokens=None if form is ExportFormat.FULL else stray,
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


if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

_CUT = ("model.embed_tokens.weight", "lm_head.weight")
_MORE_HEADS = ("pred_heads.weight", "raw_pred_heads.weight")
_SUFFIX_TABLE = ("suffix_rows.edges", "suffix_rows.symbols")
"""Of suffix rows that are faded out: a plain checkpoint has no place for them."""


@dataclass(frozen=True)
class PlainModel:
    """A model of the backbone's own family over the raw symbols.

    Attributes:
        config: its configuration.
        weights: its state dict, without a tied head.
        heads: what heads 1 and up map hidden states to, ``(heads * 320, D)``; ``None`` without.
    """

    config: "PreTrainedConfig"
    weights: dict[str, torch.Tensor]
    heads: torch.Tensor | None

    @classmethod
    def of(cls, model: "PreTrainedModel", folder: Path) -> "PlainModel":
        """The raw rows of ``model``, which is ours, or plain already and has its heads beside it in ``folder``."""
        state = {name: tensor for name, tensor in model.state_dict().items() if name not in _SUFFIX_TABLE}
        config = copy.deepcopy(model.config.backbone_config if model.config.model_type == "proxybyte" else model.config)
        config.vocab_size = NUM_RAW_SYMBOLS
        opening = getattr(model.config, "document_opening", DocumentOpening.RAW)
        if opening != DocumentOpening.RAW:
            # A plain configuration keeps what it does not know, and who scores the folder must know how it opens.
            config.document_opening = opening
        config.dtype = model.dtype
        heads = [
            state.pop(name).unflatten(0, (-1, rows))[:, :NUM_RAW_SYMBOLS].flatten(0, 1)
            for name, rows in ((_MORE_HEADS[0], model.config.vocab_size), (_MORE_HEADS[1], NUM_RAW_SYMBOLS))
            if name in state
        ]
        weights = {name: tensor[:NUM_RAW_SYMBOLS].clone() if name in _CUT else tensor for name, tensor in state.items()}
        if config.tie_word_embeddings:
            weights.pop("lm_head.weight", None)
        if (folder / HEADS_FILE).is_file():
            heads.append(load_file(folder / HEADS_FILE)["heads"])
        return cls(config, weights, torch.cat(heads) if heads else None)


def save_native(made: PlainModel, generation_config: "GenerationConfig", folder: Path, shards: dict[str, int]) -> None:
    """Save under the family's own causal model, with the heads and the code that drafts with them beside it.

    Args:
        made: what to save.
        generation_config: to go with it.
        folder: where to.
        shards: ``max_shard_size`` of ``save_pretrained``, in bytes, or nothing.

    Raises:
        ProxyByteError: if the family's model has other weights.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(made.config)
    known = plain.state_dict().keys() - ({"lm_head.weight"} if made.config.tie_word_embeddings else set())
    if odd := sorted(made.weights.keys() ^ known):
        raise ProxyByteError(
            f"a plain {made.config.model_type!r} cannot hold this model ({odd[0]}): pass --format full"
        )
    plain.generation_config = generation_config
    plain.save_pretrained(folder, state_dict=made.weights, **shards)
    _add_older_names(folder / CONFIG_FILE)
    if made.heads is not None:
        save_file({"heads": made.heads.contiguous()}, folder / HEADS_FILE)
        code = folder / "custom_generate"
        code.mkdir()
        source = files("proxybyte.hub_configs") / "templates" / "draft_heads_generate.py"
        (code / "generate.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")


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
