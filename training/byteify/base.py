"""The tokenizer model that is to be turned: opened and checked before any of its weights is read."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.configuration_proxybyte import check_backbone
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import NUM_RAW_SYMBOLS

from ..compressors.bpe import BpeCompressor
from .source import Source, find_base
from .text_check import check_keeps_text

ENDS = ("lm_head.weight", "embed_tokens.weight", "wte.weight")
"""Last part of the names of the weights that hold a row a symbol."""

_TOKENIZER_FILES = ("token*", "vocab*", "*.model", "*.tiktoken", "tekken*")

_BROKEN = (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError, SafetensorError)
"""What Transformers raises for a folder that is no model, or a broken one."""


@dataclass(frozen=True)
class Base:
    """A decoder with a fast tokenizer that keeps text.

    Attributes:
        source: where it lies.
        config: of the decoder, as it was saved.
        tokenizer: as Transformers loads it.
        compressor: the same tokenizer behind the compressor protocol.
    """

    source: Source
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerFast
    compressor: BpeCompressor

    @property
    def rows(self) -> int:
        """Rows of its embedding; a few may lie beyond the tokenizer's ids."""
        return int(self.config.vocab_size)

    def byte_config(self) -> ProxyByteConfig:
        """Configuration of the model that it becomes.

        Raises:
            ProxyByteError: if its decoder is none that ProxyByte can run.
        """
        backbone = copy.deepcopy(self.config)
        backbone.vocab_size = NUM_RAW_SYMBOLS + self.rows
        for name in ("quantization_config", "architectures", "auto_map", "torch_dtype"):
            backbone.__dict__.pop(name, None)
        return ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=self.rows)

    def load(self, dtype: torch.dtype) -> Any:
        """The model itself, in evaluation mode.

        Raises:
            ProxyByteError: if a weight is absent, odd, of another shape or unreadable.
        """
        model, report = _reading(
            self.source,
            AutoModelForCausalLM.from_pretrained,
            config=copy.deepcopy(self.config),
            dtype=dtype,
            output_loading_info=True,
            **({} if self.source.gguf_file else {"use_safetensors": True}),
        )
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if report[kind]:
                name = sorted(map(str, report[kind]))[0]
                raise ProxyByteError(f"{self.source.given}: its weights do not fit its config: {kind} {name}")
        found = model.get_input_embeddings().num_embeddings
        if found != self.rows:
            raise ProxyByteError(
                f"{self.source.given}: its embedding has {found} rows but its config says vocab_size={self.rows}: "
                "correct config.json"
            )
        return model.eval()


def open_base(given: str) -> Base:
    """Open a base and check all that can be checked without its weights.

    Args:
        given: a GGUF file, a model folder, or a name on the Hub.

    Raises:
        ProxyByteError: if it is no text decoder that ProxyByte can run, its tokenizer is slow or does not keep text,
            or its tokenizer and embedding do not fit; one sentence with the reason and what to do.
    """
    source = find_base(given)
    config = _reading(source, AutoConfig.from_pretrained)
    _check_config(source, config)
    tokenizer = _open_tokenizer(source)
    if not getattr(tokenizer, "is_fast", False):
        raise ProxyByteError(
            f"{given}: its tokenizer ({type(tokenizer).__name__}) is slow, and only fast ones can be carried along: "
            "convert it to a tokenizer.json first"
        )
    if source.gguf_file is not None:
        tokenizer = _without_invented_tokens(tokenizer, config.vocab_size)
    compressor = BpeCompressor(tokenizer.backend_tokenizer.to_str(), Path(given).stem or given, given)
    if compressor.num_symbols > config.vocab_size:
        raise ProxyByteError(
            f"{given}: its tokenizer has ids up to {compressor.num_symbols - 1} but its embedding has "
            f"{config.vocab_size} rows: use the tokenizer it was trained with, or resize and train its embedding first"
        )
    check_keeps_text(compressor, given)
    base = Base(source, config, tokenizer, compressor)
    _check_names(base)
    return base


def _open_tokenizer(source: Source) -> Any:
    """As Transformers loads it, slow ones too.

    Raises:
        ProxyByteError: if there is none, or it does not load.
    """
    folder = Path(source.place)
    files = [path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)]
    if source.gguf_file is None and folder.is_dir() and not files:
        raise ProxyByteError(f"{source.given}: holds no tokenizer: copy in the tokenizer.json that it was trained with")
    return _reading(source, AutoTokenizer.from_pretrained)


def _without_invented_tokens(tokenizer: PreTrainedTokenizerFast, rows: int) -> PreTrainedTokenizerFast:
    """Without the tokens that Transformers adds to a GGUF's own: ``<|endoftext|>`` to one of Llama 3, for example."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    own = [token for token in spec["added_tokens"] if token["id"] < rows]
    if len(own) == len(spec["added_tokens"]):
        return tokenizer
    vocab = tokenizer.get_vocab()
    named = {
        name: token
        for name, token in tokenizer.special_tokens_map.items()
        if isinstance(token, str) and vocab[token] < rows
    }
    backend = Tokenizer.from_str(json.dumps({**spec, "added_tokens": own}))
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=tokenizer.chat_template, **named)


def _check_config(source: Source, config: PreTrainedConfig) -> None:
    if config.model_type == ProxyByteConfig.model_type:
        raise ProxyByteError(f"{source.given}: reads bytes already: train it with model.checkpoint={source.given}")
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None and source.gguf_file is None:
        raise ProxyByteError(f"{source.given}: its weights are quantised: save it in float32 or bfloat16 first")
    if config.get_text_config() is not config:
        raise ProxyByteError(
            f"{source.given}: a {config.model_type!r} model reads more than text: save its text decoder alone first"
        )
    try:
        check_backbone(config)
    except ProxyByteError as error:
        raise ProxyByteError(f"{source.given}: {error}") from None
    if not isinstance(getattr(config, "vocab_size", None), int):
        raise ProxyByteError(f"{source.given}: its config says no vocab_size: write it into config.json")


def _check_names(base: Base) -> None:
    """Same weights under the same names and shapes, but for the rows: on models without storage."""
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(base.config)
        ours = ProxyByteForCausalLM(base.byte_config())
    here = _shapes(renamed(theirs.state_dict(), theirs.base_model_prefix))
    there = _shapes(ours.state_dict())
    if odd := sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name)):
        raise ProxyByteError(
            f"{base.source.given}: a {base.config.model_type!r} model keeps {odd[0]}, which has no place in a "
            "ProxyByte model (a bias in the head, for example): choose another family"
        )


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape[1:] if name.endswith(ENDS) else value.shape for name, value in weights.items()}


def renamed(weights: dict[str, Any], prefix: str) -> dict[str, Any]:
    """``weights`` with the decoder under ``model``, whatever its own causal model calls it."""
    return {
        f"model.{name.removeprefix(prefix + '.')}" if name.startswith(f"{prefix}.") else name: value
        for name, value in weights.items()
    }


def _reading(source: Source, load: Any, **settings: Any) -> Any:
    """What ``load`` reads from ``source``; its many kinds of errors as one sentence."""
    try:
        return load(source.place, **source.arguments(), **settings)
    except ProxyByteError:
        raise
    except _BROKEN as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = " ".join(lines[: 2 if lines[0].rstrip().endswith(":") else 1])
        raise ProxyByteError(f"{source.given}: cannot be opened as a model of Transformers ({reason})") from error
