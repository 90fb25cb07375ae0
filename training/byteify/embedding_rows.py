"""First rows of the bytes and specials, made from the rows of the base's tokens.

A byte's row may be that of the token that is the byte alone, the mean of tokens that begin with it, the mean of tokens
that spell it anywhere, the mean of all, or noise about that mean. docs/byteify.md measures which starts lowest.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import torch

from proxybyte.symbols import BYTE_OFFSET, NUM_BYTES, NUM_RAW_SYMBOLS

from ..compressors.bpe import BpeCompressor

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class RowScheme(StrEnum):
    """What the first row of a byte is."""

    TOKEN = "token"
    """The token that is this byte and nothing else."""
    BEGINS = "begins"
    """The mean of all tokens that begin with it."""
    SPELLS = "spells"
    """The mean of all tokens in which it stands, each as often as it does."""
    BLEND = "blend"
    """Half ``token``, half ``begins``."""
    MEAN = "mean"
    """The mean of all tokens: every byte starts alike."""
    RANDOM = "random"
    """A draw from the normal distribution with the mean and variance of the tokens' rows, by dimension."""


def token_spellings(compressor: BpeCompressor) -> list[bytes | None]:
    """Bytes of each token id, ``None`` where it spells nothing (specials, unused ids).

    SentencePiece's ``<0x41>`` is the byte and its low line is a space.
    """
    if compressor.spelled is not None:
        return list(compressor.spelled)
    return [None if token is None else _piece_bytes(token) for token in compressor.pieces()]


def _piece_bytes(piece: str) -> bytes:
    found = _BYTE_TOKEN.fullmatch(piece)
    return bytes([int(found[1], 16)]) if found else piece.replace("\u2581", " ").encode()


def byte_weights(spellings: Sequence[bytes | None], scheme: RowScheme) -> torch.Tensor:
    """Which tokens' rows a byte's row is the mean of.

    Args:
        spellings: bytes of each token.
        scheme: ``token``, ``begins`` or ``spells``.

    Returns:
        Float32, shape ``(256, tokens)`` whose rows sum to 1, or to 0 where no token qualifies.
    """
    places: list[tuple[int, int]] = []
    for token, spelled in enumerate(spellings):
        if not spelled or (scheme is RowScheme.TOKEN and len(spelled) > 1):
            continue
        for byte in spelled if scheme is RowScheme.SPELLS else spelled[:1]:
            places.append((byte, token))
    counts = torch.zeros(NUM_BYTES, len(spellings))
    if places:
        counts.index_put_(tuple(torch.tensor(places).T), torch.ones(()), accumulate=True)
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


def byte_rows(rows: torch.Tensor, spellings: Sequence[bytes | None], scheme: RowScheme, seed: int = 0) -> torch.Tensor:
    """First rows of the 256 bytes.

    Args:
        rows: the base's rows, shape ``(at least len(spellings), D)``.
        spellings: bytes of each token.
        scheme: see :class:`RowScheme`. Where no token qualifies for a byte, it takes the next of ``token``,
            ``begins``, ``spells``, ``mean`` that has one.
        seed: of ``random``.

    Returns:
        Float32, shape ``(256, D)``.
    """
    known = torch.tensor([token for token, spelled in enumerate(spellings) if spelled])
    wide = rows[: len(spellings)].float()
    mean = wide[known].mean(dim=0)
    if scheme is RowScheme.MEAN:
        return mean.repeat(NUM_BYTES, 1)
    if scheme is RowScheme.RANDOM:
        noise = torch.randn(NUM_BYTES, wide.shape[1], generator=torch.Generator().manual_seed(seed))
        return mean + noise * wide[known].std(dim=0)
    if scheme is RowScheme.BLEND:
        halves = (byte_rows(rows, spellings, half) for half in (RowScheme.TOKEN, RowScheme.BEGINS))
        return sum(halves, torch.zeros(())) / 2
    order = [RowScheme.TOKEN, RowScheme.BEGINS, RowScheme.SPELLS]
    result, missing = mean.repeat(NUM_BYTES, 1), torch.ones(NUM_BYTES, dtype=torch.bool)
    for choice in order[order.index(scheme) :] + order[: order.index(scheme)]:
        weights = byte_weights(spellings, choice)
        found = missing & (weights.sum(dim=1) > 0)
        result[found] = weights[found] @ wide
        missing &= ~found
    return result


def raw_rows(rows: torch.Tensor, bytes_: torch.Tensor, specials: np.ndarray) -> torch.Tensor:
    """Rows of the 320 raw symbols.

    Args:
        rows: the base's rows, shape ``(V, D)``.
        bytes_: shape ``(256, D)``.
        specials: token whose row each special takes, -1 for the mean of all, shape ``(64,)``.

    Returns:
        In the dtype of ``rows``, shape ``(320, D)``.
    """
    result = torch.empty(NUM_RAW_SYMBOLS, rows.shape[1], dtype=rows.dtype)
    result[BYTE_OFFSET:] = bytes_.to(rows.dtype)
    result[:BYTE_OFFSET] = rows.float().mean(dim=0).to(rows.dtype)
    mapped = torch.from_numpy(np.flatnonzero(specials >= 0))
    result[mapped] = rows[torch.from_numpy(specials[specials >= 0])]
    return result
