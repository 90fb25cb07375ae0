"""ProxyByte: one language model trained on raw bytes and compressed views of text, run on raw bytes alone.

Names load on first use, so that ``proxybyte --help`` does not wait for torch. Loading any model or configuration
name also registers both with Transformers' ``AutoConfig`` and ``AutoModelForCausalLM``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .byte_codec import decode_bytes, encode_bytes
    from .chat import encode_chat
    from .configuration_proxybyte import ProxyByteConfig
    from .errors import ProxyByteError
    from .logits_processors import Utf8LogitsProcessor
    from .modeling_eva import EvaConfig, EvaModel
    from .modeling_proxybyte import ProxyByteForCausalLM
    from .streaming import ByteIteratorStreamer, ByteStreamer
    from .symbols import DocumentOpening, Special, View, document_opening
    from .tokenization_proxybyte import build_tokenizer, save_tokenizer

_HOME = {
    "ByteIteratorStreamer": "streaming",
    "ByteStreamer": "streaming",
    "DocumentOpening": "symbols",
    "EvaConfig": "modeling_eva",
    "EvaModel": "modeling_eva",
    "ProxyByteConfig": "modeling_proxybyte",
    "ProxyByteForCausalLM": "modeling_proxybyte",
    "ProxyByteError": "errors",
    "Special": "symbols",
    "Utf8LogitsProcessor": "logits_processors",
    "View": "symbols",
    "build_tokenizer": "tokenization_proxybyte",
    "bytes_of": "training.byteify",
    "decode_bytes": "byte_codec",
    "document_opening": "symbols",
    "encode_bytes": "byte_codec",
    "encode_chat": "chat",
    "save_tokenizer": "tokenization_proxybyte",
}
__all__ = [
    "ByteIteratorStreamer",
    "ByteStreamer",
    "DocumentOpening",
    "EvaConfig",
    "EvaModel",
    "ProxyByteConfig",
    "ProxyByteError",
    "ProxyByteForCausalLM",
    "Special",
    "Utf8LogitsProcessor",
    "View",
    "build_tokenizer",
    "decode_bytes",
    "document_opening",
    "encode_bytes",
    "encode_chat",
    "save_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'proxybyte' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
