"""What each compressed symbol spells: all that drafting in the compressed view needs to know of a compressor."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from .errors import ProxyByteError


class Spelling:
    """A table from codes to byte strings, and the way back.

    ``proxybyte.training.load_spelling`` makes one from the ``compressor/`` folder of a full export.

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
