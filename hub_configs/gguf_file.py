"""A plain byte model as one GGUF file, for llama.cpp and what is built on it.

llama.cpp decides by a token's type and, for some, by its name whether text that spells it becomes it. So the plain
kind's specials are UNUSED and have names that it does not know; the chat kind's are CONTROL, because a rendered chat
is parsed. The bytes are a BPE vocabulary with one merge that nothing reaches, because it takes none without.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from proxybyte.errors import ProxyByteError, WrongOption
from proxybyte.symbols import NUM_BYTES, NUM_RAW_SYMBOLS, NUM_SPECIALS, Special, special_spelling
from proxybyte.tokenization_proxybyte import byte_level_letter

if TYPE_CHECKING:
    import gguf
    import numpy as np
    from transformers import PreTrainedConfig

GGUF_FAMILIES = {"llama": "LLAMA", "mistral": "LLAMA", "qwen3": "QWEN3"}
"""Our families, and the architecture of llama.cpp that computes the same."""
_PAIRED_HALVES = ("LLAMA",)
"""Architectures that rotate neighbouring numbers, where Transformers rotates the two halves of a head."""
_QUERY_OR_KEY = (".self_attn.q_proj.", ".self_attn.k_proj.")


class GgufType(StrEnum):
    """How the matrices are stored; vectors are always 32-bit."""

    F32 = "f32"
    F16 = "f16"
    Q8_0 = "q8_0"


@dataclass(frozen=True)
class GgufText:
    """What the file says about text.

    Attributes:
        name: of the model.
        opening: symbols before a text.
        chat_template: Jinja source; ``None`` for the plain kind.
    """

    name: str
    opening: tuple[int, ...] = (int(Special.RAW_OPEN),)
    chat_template: str | None = None


def check_gguf_family(config: "PreTrainedConfig") -> None:
    """Refuse what llama.cpp would compute otherwise.

    Raises:
        ProxyByteError: naming it.
    """
    kind = config.model_type
    if kind not in GGUF_FAMILIES:
        offered = ", ".join(sorted(GGUF_FAMILIES))
        told = f"format gguf is not offered for {kind!r}, only for {offered}: native serves vLLM and Transformers"
        raise WrongOption(told, "format")
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings and getattr(config, "use_sliding_window", True):
        raise ProxyByteError(
            f"a {kind!r} with a sliding window of {window} has no GGUF file, llama.cpp would ignore it: "
            "pass --format native"
        )
    if _rope_type(config) not in ("default", "linear", "llama3"):
        raise ProxyByteError(f"rope_type {_rope_type(config)!r} has no GGUF file: pass --format native")


def write_gguf(
    config: "PreTrainedConfig", weights: dict[str, torch.Tensor], path: Path, stored: GgufType, text: GgufText
) -> None:
    """Write the plain model to ``path``.

    Args:
        config: of the plain family, with 320 rows.
        weights: its state dict; no ``lm_head.weight`` where it is tied.
        path: the file.
        stored: type of the matrices.
        text: name and chat template.

    Raises:
        ProxyByteError: if the ``gguf`` package is absent, or has no place for a weight.
    """
    if len(text.opening) != 1:
        raise ProxyByteError(
            f"a text of this model opens with {len(text.opening)} symbols, llama.cpp puts one before it: "
            "pass --format native"
        )
    try:
        import gguf
    except ImportError as error:
        raise WrongOption("format gguf needs the package gguf: pip install 'proxybyte[gguf]'", "format") from error
    name = GGUF_FAMILIES[config.model_type]
    arch = gguf.MODEL_ARCH[name]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_name(text.name)
    _add_shape(writer, config, stored)
    _add_tokens(writer, text)
    places = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for key, weight in _all_weights(config, weights, paired=name in _PAIRED_HALVES):
        place = key if key.startswith("rope_freqs") else places.get_name(key, try_suffixes=(".weight", ".bias"))
        if place is None:
            raise ProxyByteError(f"a GGUF file of {config.model_type!r} has no place for {key}: pass --format native")
        data, kind = _stored(weight, stored)
        writer.add_tensor(place, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: "gguf.GGUFWriter", config: "PreTrainedConfig", stored: GgufType) -> None:
    import gguf

    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads or heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_size)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    if _rope_type(config) == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(config.rope_parameters["factor"]))
    writer.add_vocab_size(NUM_RAW_SYMBOLS)
    kinds = {GgufType.F32: "ALL_F32", GgufType.F16: "MOSTLY_F16", GgufType.Q8_0: "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[kinds[stored]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokens(writer: "gguf.GGUFWriter", text: GgufText) -> None:
    import gguf

    chat = text.chat_template is not None
    special = gguf.TokenType.CONTROL if chat else gguf.TokenType.UNUSED
    names = [special_spelling(symbol) if chat else f"special {symbol}" for symbol in range(NUM_SPECIALS)]
    letters = [byte_level_letter(byte) for byte in range(NUM_BYTES)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*names, *letters])
    writer.add_token_types([special] * NUM_SPECIALS + [gguf.TokenType.NORMAL] * NUM_BYTES)
    # What it would make is no token, so that it is never taken.
    writer.add_token_merges([f"{letters[0]} {letters[0]}"])
    writer.add_bos_token_id(text.opening[0])
    writer.add_eos_token_id(Special.EOS)
    # Whatever ends a turn, a message or a text ends generation.
    writer.add_eot_token_id(Special.END_OF_TURN if chat else Special.RAW_CLOSE)
    writer.add_eom_token_id(Special.RAW_CLOSE)
    writer.add_pad_token_id(Special.PAD)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    ends = {Special.EOS, Special.RAW_CLOSE, *([Special.END_OF_TURN] if chat else [])}
    writer.add_array("tokenizer.ggml.suppress_tokens", [s for s in range(NUM_SPECIALS) if s not in ends])
    if text.chat_template is not None:
        writer.add_chat_template(text.chat_template)


def _all_weights(
    config: "PreTrainedConfig", weights: dict[str, torch.Tensor], *, paired: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    for key, weight in weights.items():
        if paired and any(part in key for part in _QUERY_OR_KEY):
            heads = config.num_attention_heads if ".q_proj." in key else config.num_key_value_heads
            halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
            yield key, halves.transpose(1, 2).reshape(weight.shape)
        else:
            yield key, weight
    if _rope_type(config) == "llama3":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        places = torch.arange(len(scaled), dtype=torch.float32) / len(scaled)
        yield "rope_freqs.weight", config.rope_parameters["rope_theta"] ** -places / scaled


def _stored(weight: torch.Tensor, stored: GgufType) -> tuple["np.ndarray", Any]:
    """A weight's numbers and their type in the file."""
    import gguf

    data = weight.to(torch.float32).contiguous().numpy()
    if weight.ndim < 2 or stored is GgufType.F32:
        return data, gguf.GGMLQuantizationType.F32
    if stored is GgufType.Q8_0 and data.shape[-1] % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0][0] == 0:
        kind = gguf.GGMLQuantizationType.Q8_0
        return gguf.quants.quantize(data, kind), kind
    return data.astype("float16"), gguf.GGMLQuantizationType.F16


def _rope_type(config: "PreTrainedConfig") -> str:
    return (config.rope_parameters or {}).get("rope_type", "default")
