"""Where the symbols of a compressor would end in the raw text of packed rows."""

from dataclasses import dataclass

import numpy as np

from proxybyte.byte_codec import decode_bytes
from proxybyte.symbols import COMPRESSED_OFFSET, NUM_SPECIALS

from ..compressors import CannotEncode, Compressor, encode_one


@dataclass(frozen=True)
class Span:
    """A stretch of raw text in a batch, coded.

    Attributes:
        row: which row.
        codes: its tokens, shape ``(K,)``.
        begin: column of its first byte.
        ends: bytes that the first tokens spell together, shape ``(K,)``.
    """

    row: int
    codes: np.ndarray
    begin: int
    ends: np.ndarray

    @property
    def places(self) -> np.ndarray:
        """Column of the last byte of each of the first ``K - 1`` tokens, shape ``(K - 1,)``."""
        return self.begin + self.ends[:-1] - 1


def raw_spans(input_ids: np.ndarray, compressor: Compressor) -> list[Span]:
    """Every stretch of raw text with at least two tokens; those that the compressor cannot code are left out.

    Args:
        input_ids: packed rows, shape ``(B, T)``.
        compressor: a tokenizer.
    """
    spans = []
    for row, symbols in enumerate(input_ids):
        raw = (symbols >= NUM_SPECIALS) & (symbols < COMPRESSED_OFFSET)
        borders = np.flatnonzero(np.diff(raw.astype(np.int8), prepend=0, append=0))
        for begin, end in borders.reshape(-1, 2):
            try:
                codes = encode_one(compressor, decode_bytes(symbols[begin:end]))
            except CannotEncode:
                continue
            ends = compressor.borders(codes)
            if ends is not None and len(codes) > 1:
                spans.append(Span(row, codes, int(begin), ends))
    return spans
