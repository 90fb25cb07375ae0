"""What a compressor's symbols spell, for drafting in the compressed view (``proxybyte.spelling``)."""

from pathlib import Path
from typing import Any

from proxybyte.errors import ProxyByteError
from proxybyte.spelling import Spelling

from .protocol import CannotEncode, Compressor
from .registry import load_compressor


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
