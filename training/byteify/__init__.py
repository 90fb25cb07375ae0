"""A tokenizer model turned into one that reads raw bytes: its decoder kept, its own tokenizer made the compressor."""

from .base import Base, open_base
from .convert import ByteifyOptions, byteify
from .next_bytes import ByteView, bytes_of
from .rows import RowScheme

__all__ = ["Base", "ByteView", "ByteifyOptions", "RowScheme", "byteify", "bytes_of", "open_base"]
