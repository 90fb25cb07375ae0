"""Bits per byte of what is no language model, on the same documents: the lines a table needs for scale."""

import gzip
import lzma
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from proxybyte.errors import ProxyByteError
from proxybyte.eval.bpb import BPBResult
from proxybyte.symbols import NUM_RAW_SYMBOLS


def gzip_bits_per_byte(documents: Sequence[bytes]) -> BPBResult:
    """``gzip -9`` of each document alone, its 18 bytes of header and checksum included."""
    return _file_compressor(documents, lambda document: gzip.compress(document, compresslevel=9, mtime=0))


def xz_bits_per_byte(documents: Sequence[bytes]) -> BPBResult:
    """``xz -6e`` of each document alone, its 60-odd bytes of container included."""
    return _file_compressor(documents, lambda document: lzma.compress(document, preset=6 | lzma.PRESET_EXTREME))


def uniform_bits_per_byte(documents: Sequence[bytes], num_symbols: int = NUM_RAW_SYMBOLS) -> BPBResult:
    """A model that knows nothing: every one of ``num_symbols`` symbols is as likely as another at every byte."""
    sizes = _sizes(documents)
    return BPBResult(
        document_bits=sizes * math.log2(num_symbols),
        document_bytes=sizes,
        n_symbols=int(sizes.sum()),
        n_positions=0,
        seconds=0.0,
    )


def _file_compressor(documents: Sequence[bytes], compress: Callable[[bytes], bytes]) -> BPBResult:
    sizes = _sizes(documents)
    started = time.perf_counter()
    coded = np.array([len(compress(document)) if document else 0 for document in documents], dtype=np.int64)
    return BPBResult(
        document_bits=8.0 * coded,
        document_bytes=sizes,
        n_symbols=int(sizes.sum()),
        n_positions=0,
        seconds=time.perf_counter() - started,
    )


def _sizes(documents: Sequence[bytes]) -> np.ndarray:
    sizes = np.array([len(document) for document in documents], dtype=np.int64)
    if not sizes.sum():
        raise ProxyByteError("there is no byte to score: every document is empty")
    return sizes
