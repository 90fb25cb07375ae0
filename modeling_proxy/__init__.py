"""ProxyByte: one language model trained on raw bytes and compressed views of text, run on raw bytes alone.

Names load on first use, so that ``proxybyte --help`` does not wait for torch. Loading any model or configuration
name also registers both with Transformers' ``AutoConfig`` and ``AutoModelForCausalLM``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .byte_codec import decode_bytes, encode_bytes
    from .configuration_proxybyte import ProxyByteConfig
    from .errors import ProxyByteError
    from .modeling_proxybyte import ProxyByteForCausalLM
    from .symbols import Special, View
    from .tokenization_proxybyte import build_tokenizer

_HOME = {
    "ProxyByteConfig": "modeling_proxybyte",
    "ProxyByteForCausalLM": "modeling_proxybyte",
    "ProxyByteError": "errors",
    "Special": "symbols",
    "View": "symbols",
    "build_tokenizer": "tokenization_proxybyte",
    "decode_bytes": "byte_codec",
    "encode_bytes": "byte_codec",
}
__all__ = [
    "ProxyByteConfig",
    "ProxyByteError",
    "ProxyByteForCausalLM",
    "Special",
    "View",
    "build_tokenizer",
    "decode_bytes",
    "encode_bytes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'proxybyte' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
