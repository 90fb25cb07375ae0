"""What a compressor's symbols spell: all that drafting in the compressed view needs to know of it."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from proxybyte.errors import ProxyByteError

from .protocol import CannotEncode, Compressor
from .registry import load_compressor


class Spelling:
    """A table from codes to byte strings, and the way back.

    ``load_spelling`` makes one from the ``compressor/`` folder of a full export.

    Args:
        spelled: bytes of each code, empty or ``None`` for one that spells nothing by itself.
        encode: codes of a text; what they spell together is the text or its beginning.

    Raises:
        ProxyByteError: if no code spells anything.
    """

    def __init__(self, spelled: Sequence[bytes | None], encode: Callable[[bytes], Sequence[int]]) -> None:
        self.spelled = [text or b"" for text in spelled]
        self.encode = encode
        codes = sorted((code for code, text in enumerate(self.spelled) if text), key=self.spelled.__getitem__)
        if not codes:
            raise ProxyByteError("drafting needs a compressor whose symbols spell bytes: none of these does")
        self._codes = np.array(codes)
        self._texts = [self.spelled[code] for code in codes]

    def beginning_with(self, start: bytes) -> np.ndarray:
        """Codes whose bytes begin with ``start``, all that spell anything if it is empty."""
        first = bisect_left(self._texts, start)
        # The least string above all that begin with it: without what is 0xFF at its end, one up.
        stem = start.rstrip(b"\xff")
        last = bisect_left(self._texts, stem[:-1] + bytes([stem[-1] + 1])) if stem else len(self._texts)
        return self._codes[first:last]


def load_spelling(folder: str | Path) -> Spelling:
    """The spelling of a saved compressor, such as the folder ``compressor/`` of a full export.

    Raises:
        ProxyByteError: if there is no compressor, or its symbols do not spell byte strings.
    """
    return spelling_of(load_compressor(folder))


def spelling_of(compressor: Compressor) -> Spelling:
    """What each symbol of ``compressor`` spells.

    Raises:
        ProxyByteError: if a symbol's bytes depend on others, as in gzip and the neural coder.
    """
    # By family, so that none is imported for its name's sake.
    given: Any = compressor
    pairs = compressor.family == "bits" and given.width == 16
    spelled: list[bytes | None] | None = None
    if compressor.family == "bpe":
        spelled = given.spelled
    elif compressor.family == "codebook":
        spelled = [given.decode([code]) for code in range(compressor.num_symbols)]
    elif compressor.family == "bits" and given.width == 8:
        spelled = [bytes([code]) for code in range(compressor.num_symbols)]
    elif pairs:
        spelled = [code.to_bytes(2, "big") for code in range(compressor.num_symbols)]
    if spelled is None:
        raise ProxyByteError(f"{compressor.name}: its symbols do not spell byte strings one by one: it cannot draft")

    def encode(text: bytes) -> list[int]:
        (codes,) = compressor.encode_batch([text[: len(text) // 2 * 2] if pairs else text])
        if isinstance(codes, CannotEncode):
            return []
        # With pairs the last symbol says how a document ends, and this one does not; the published form has none.
        return codes[:-1].tolist() if pairs and not given.published else codes.tolist()

    return Spelling(spelled, encode)
