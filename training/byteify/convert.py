"""From a tokenizer model to a ProxyByte folder: its decoder kept, rows for bytes and specials put before its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, build_tokenizer, save_tokenizer
from proxybyte.artefacts import CHAT_FOLDER, COMPRESSOR_FOLDER
from proxybyte.errors import ProxyByteError
from proxybyte.folders import output_folder, whole_folder, write_json
from proxybyte.privacy import shown_name
from proxybyte.progress import Progress
from proxybyte.provenance import BYTEIFY_REPORT
from proxybyte.symbols import NUM_RAW_SYMBOLS, View

from ..compressors import encode_one
from .base import ENDS, Base, open_base, renamed
from .chat_template import save_chat_tokenizer
from .embedding_rows import RowScheme, byte_rows, raw_rows, token_spellings
from .source import license_of
from .specials import describe, map_specials, text_start
from .text_check import SAMPLE, composes_text

KIND = "byteified model"
"""Of output (``proxybyte.folders``)."""


_OVERHEAD = 600_000_000
"""Bytes for the libraries and small things."""


def needed_bytes(base: Base, dtype: torch.dtype) -> int:
    """Most memory that the conversion holds at once: the base, and the new embedding and head beside the old."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(base.config)
    weights = sum(weight.numel() for weight in model.parameters())
    ends = {id(module.weight): module.weight.numel() for module in (model.get_input_embeddings(), model.lm_head)}
    ends_bytes = sum(ends.values()) * dtype.itemsize
    # Reading a GGUF keeps each tensor in float32 once more; a row scheme widens the rows to float32.
    reading = weights * 4 if base.source.gguf_file else 0
    return weights * dtype.itemsize + max(reading, ends_bytes + 4 * max(ends.values())) + _OVERHEAD


def check_memory(base: Base, dtype: torch.dtype) -> None:
    """Refuse a conversion that would not fit.

    Raises:
        ProxyByteError: with both figures and what to do.
    """
    needed, free = needed_bytes(base, dtype), psutil.virtual_memory().available
    if needed > free:
        raise ProxyByteError(
            f"{base.source.given}: turning it takes {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
            "pass --dtype bfloat16, or use a machine with more memory"
        )


@dataclass(frozen=True)
class ByteifyOptions:
    """How to turn a base.

    Attributes:
        rows: how the bytes' rows of the embedding start.
        head_rows: the same of an untied head; as ``rows`` if absent.
        dtype: of the weights; as the base was saved if absent (float32 for GGUF).
        seed: of random rows.
    """

    rows: RowScheme = RowScheme.TOKEN
    head_rows: RowScheme | None = None
    dtype: torch.dtype | None = None
    seed: int = 0


def byteify(given: str, out: Path, options: ByteifyOptions = ByteifyOptions()) -> dict[str, Any]:
    """Turn a base into a byte model and write it to ``out``, whole or not at all.

    Args:
        given: a Hub name, a model folder, or a GGUF file.
        out: folder to write; an earlier output of this command is replaced.
        options: how.

    Returns:
        The report, which is ``byteify.json`` in the folder.

    Raises:
        ProxyByteError: if the base cannot be turned (see :func:`~.base.open_base`), there is too little memory, or
            the folder holds something else; nothing is written then.
    """
    with output_folder(out, KIND):
        return _byteify(given, out, options)


def _byteify(given: str, out: Path, options: ByteifyOptions) -> dict[str, Any]:
    transformers_logging.disable_progress_bar()
    with Progress(total=5, desc="byteify", delay=2, unit="step") as bar:
        base = open_base(given)
        dtype = options.dtype or _saved_dtype(base)
        check_memory(base, dtype)
        bar.update()
        model = base.load(dtype)
        bar.update()
        probe = ask_base(model, base, text_start(base.tokenizer))
        byte_model = turn(model, base, options)
        del model
        bar.update()
        error = check_exact(byte_model, probe, given)
        report = _report(base, options, error, byte_model)
        bar.update()
        _write(byte_model, base, report, out)
        bar.update()
    return report


def turn(model: Any, base: Base, options: ByteifyOptions) -> ProxyByteForCausalLM:
    """The byte model of ``model``; it shares all weights but the embedding and the head with it.

    Args:
        model: of the base, loaded.
        base: what it is.
        options: how rows start.
    """
    config = base.byte_config()
    _note_tying(config, model)
    weights = renamed(model.state_dict(), model.base_model_prefix)
    spellings, specials = token_spellings(base.compressor), map_specials(base.tokenizer)
    head_scheme = options.head_rows or options.rows
    made: dict[int, torch.Tensor] = {}
    for name in [name for name in weights if name.endswith(ENDS)]:
        old = weights[name]
        scheme = head_scheme if name == "lm_head.weight" and not config.tie_word_embeddings else options.rows
        if config.tie_word_embeddings and made:
            weights[name] = next(iter(made.values()))
            continue
        first = raw_rows(old, byte_rows(old, spellings, scheme, options.seed), specials)
        weights[name] = made[len(made)] = torch.cat([first, old])
    with torch.device("meta"):
        turned = ProxyByteForCausalLM(config)
    turned.load_state_dict(weights, assign=True, strict=True)
    turned.tie_weights()
    _restore_buffers(turned, model)
    return turned.eval()


def _note_tying(config: ProxyByteConfig, model: Any) -> None:
    """Whether head and embedding are one, by the weights themselves: some checkpoints' configs say otherwise."""
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    tied = head is embedding or head.data_ptr() == embedding.data_ptr()
    config.tie_word_embeddings = config.backbone_config.tie_word_embeddings = tied


def _restore_buffers(turned: ProxyByteForCausalLM, model: Any) -> None:
    """Buffers that no state dict carries (rotary frequencies, the embedding's scale), from the base's own."""
    theirs = dict(renamed(dict(model.named_buffers()), model.base_model_prefix))
    for name, buffer in list(turned.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            setattr(turned.get_submodule(owner), leaf, theirs[name])


def _saved_dtype(base: Base) -> torch.dtype:
    saved = getattr(base.config, "dtype", None)
    return saved if isinstance(saved, torch.dtype) and base.source.gguf_file is None else torch.float32


def _report(base: Base, options: ByteifyOptions, error: float, model: ProxyByteForCausalLM) -> dict[str, Any]:
    tied = bool(model.config.tie_word_embeddings)
    specials: np.ndarray = map_specials(base.tokenizer)
    return {
        "base": shown_name(base.source.given),
        "license": license_of(base.source),
        "family": base.config.model_type,
        "parameters": model.num_parameters(),
        "symbols": int(model.config.vocab_size),
        "tokens": base.compressor.num_symbols,
        "padding_rows": base.rows - base.compressor.num_symbols,
        "tied": tied,
        "dtype": str(model.dtype).removeprefix("torch."),
        "rows": str(options.rows),
        "head_rows": str(options.rows if tied else options.head_rows or options.rows),
        "seed": options.seed,
        "specials": describe(specials, base.tokenizer),
        "chat_template": base.tokenizer.chat_template is not None,
        "decomposed_text_stays_raw": composes_text(base.compressor),
        "largest_logit_difference": error,
    }


def _write(model: ProxyByteForCausalLM, base: Base, report: dict[str, Any], out: Path) -> None:
    with whole_folder(out, KIND) as folder:
        model.save_pretrained(folder)
        limit = getattr(model.config, "max_position_embeddings", None)
        save_tokenizer(build_tokenizer(model_max_length=limit), folder)
        base.compressor.save(folder / COMPRESSOR_FOLDER)
        save_chat_tokenizer(base.tokenizer, folder / CHAT_FOLDER, limit)
        write_json(folder / BYTEIFY_REPORT, report)


TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Largest difference of two logits, relative to the largest logit: what rounding alone may do."""


@dataclass(frozen=True)
class Probe:
    """The base's answer on a text, to compare with.

    Attributes:
        tokens: its token ids, shape ``(1, T)``; the first is its own beginning of a text, if it has one.
        logits: shape ``(1, T, V)``.
        opened: whether the first token is that beginning.
    """

    tokens: torch.Tensor
    logits: torch.Tensor
    opened: bool


@torch.inference_mode()
def ask_base(model: Any, base: Base, opening: int | None) -> Probe:
    """The base's logits on a short text after ``opening``."""
    codes = encode_one(base.compressor, SAMPLE.encode())
    ids = [*([] if opening is None else [opening]), *codes.tolist()]
    tokens = torch.tensor([ids])
    return Probe(tokens, model(input_ids=tokens, use_cache=False).logits, opening is not None)


@torch.inference_mode()
def difference(model: ProxyByteForCausalLM, probe: Probe) -> float:
    """Largest difference of logits, relative to the largest, in the compressed view.

    Both ways are compared: ids for ids, and with ``<comp>`` in the place of the base's own beginning.
    """
    symbols = probe.tokens + NUM_RAW_SYMBOLS
    ways = [symbols]
    if probe.opened:
        ways.append(torch.cat([torch.full((1, 1), int(View.COMPRESSED.open)), symbols[:, 1:]], dim=1))
    scale = probe.logits.abs().max().clamp(min=1e-30)
    found = [model(input_ids=way, use_cache=False).logits[..., NUM_RAW_SYMBOLS:] for way in ways]
    return max(float((logits - probe.logits).abs().max() / scale) for logits in found)


def check_exact(model: ProxyByteForCausalLM, probe: Probe, given: str) -> float:
    """The difference, where it is rounding.

    Raises:
        ProxyByteError: if it is more, so that the model would not be its base.
    """
    found = difference(model, probe)
    if not found <= TOLERANCE[model.dtype]:
        raise ProxyByteError(
            f"{given}: through the compressed view the logits differ by {found:.1e}, relative to the largest: "
            "please report this family"
        )
    return found
