"""A tokenizer model turned into one that reads raw bytes: its decoder kept, its own tokenizer made the compressor.

The public names are imported on first use, so that a base that is not there is refused before torch is waited for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Base, open_base
    from .convert import ByteifyOptions, byteify
    from .embedding_rows import RowScheme
    from .next_bytes import ByteView, bytes_of
    from .source import find_base

__all__ = ["Base", "ByteView", "ByteifyOptions", "RowScheme", "byteify", "bytes_of", "find_base", "open_base"]
_HOMES = {
    "Base": ".base",
    "ByteView": ".next_bytes",
    "ByteifyOptions": ".convert",
    "RowScheme": ".embedding_rows",
    "byteify": ".convert",
    "bytes_of": ".next_bytes",
    "find_base": ".source",
    "open_base": ".base",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
