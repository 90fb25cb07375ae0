"""A tokenizer model turned into one that reads raw bytes: its decoder kept, its own tokenizer made the compressor."""

from .base import Base, open_base
from .convert import ByteifyOptions, byteify
from .rows import RowScheme

__all__ = ["Base", "ByteifyOptions", "RowScheme", "byteify", "open_base"]
