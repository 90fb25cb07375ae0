"""The compiled neural codebook: M1's likeliest strings as a trie, and greedy parsing with it. No torch to encode."""

from .boundaries import Boundary
from .compressor import CodebookCompressor
from .trie import Trie

__all__ = ["Boundary", "CodebookCompressor", "Trie"]
