"""A tokenizer's ids written as bytes of fixed width: the tokenizer's cut of the text without its large vocabulary."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Self

import numpy as np

from proxybyte.artefacts import TOKENIZER_FILE
from proxybyte.errors import ProxyByteError

from .bpe import BpeCompressor
from .protocol import CannotEncode, check_codes, read_folder, write_folder


class Order(StrEnum):
    """Which number a token is written as."""

    PLAIN = "plain"
    """Its id."""
    GRAY = "gray"
    """The Gray code of its place among all tokens sorted by the bytes that they spell: neighbours in that order,
    which share a prefix, differ in one bit."""
    GRAY_PUBLISHED = "gray-published"
    """The same with tokens sorted by their decoded text, as the published code sorts them. The two differ where a token
    is part of a character, whose text is U+FFFD, and for special tokens, which lie among the others by their name."""


class TokenBytesCompressor:
    """Each token as ``width`` symbols out of 256, the highest byte first.

    Args:
        bpe: where the tokens come from.
        order: which number each is written as.

    Attributes:
        width: symbols to a token: 1 for up to 256 tokens, 2 up to 65,536, else 3.
    """

    family = "token-bytes"
    num_symbols = 256
    lossless = True

    def __init__(self, bpe: BpeCompressor, order: Order) -> None:
        self.bpe = bpe
        self.order = Order(order)
        self.name = f"{bpe.name}-bytes" + ("" if self.order is Order.PLAIN else f"-{self.order}")
        self.width = max(1, -(-(bpe.num_symbols - 1).bit_length() // 8))
        self._number = _numbers(bpe, self.order)
        self._token = np.full(int(self._number.max()) + 1, -1, dtype=np.int64)
        self._token[self._number] = np.arange(bpe.num_symbols)

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """See :class:`~.protocol.Compressor`."""
        return [
            tokens if isinstance(tokens, CannotEncode) else self._spread(tokens)
            for tokens in self.bpe.encode_batch(documents)
        ]

    def _spread(self, tokens: np.ndarray) -> np.ndarray:
        numbers = self._number[tokens].astype(">u4")
        return numbers.view(np.uint8).reshape(-1, 4)[:, 4 - self.width :].ravel()

    def _tokens(self, codes: np.ndarray) -> np.ndarray:
        codes = check_codes(codes, self.num_symbols, self.name)
        if len(codes) % self.width:
            raise ProxyByteError(f"{self.name}: {len(codes)} codes are no whole number of tokens ({self.width} each)")
        digits = codes.reshape(-1, self.width).astype(np.int64)
        numbers = digits @ (256 ** np.arange(self.width - 1, -1, -1))
        tokens = np.where(numbers < len(self._token), self._token[np.minimum(numbers, len(self._token) - 1)], -1)
        if (tokens < 0).any():
            where = int(np.argmax(tokens < 0))
            raise ProxyByteError(f"{self.name}: the codes at position {where * self.width} are the number of no token")
        return tokens

    def decode(self, codes: np.ndarray) -> bytes:
        """See :class:`~.protocol.Compressor`."""
        return self.bpe.decode(self._tokens(codes))

    def borders(self, codes: np.ndarray) -> np.ndarray | None:
        """See :class:`~.protocol.Compressor`; only the last symbol of a token counts its bytes."""
        ends = self.bpe.borders(self._tokens(codes))
        if ends is None:
            return None
        before = np.concatenate([np.zeros(1, dtype=np.int64), ends])[:-1] if ends.size else ends
        spread = np.repeat(before, self.width)
        spread[self.width - 1 :: self.width] = ends
        return spread

    def save(self, folder: Path) -> None:
        """See :class:`~.protocol.Compressor`."""
        content = self.bpe.tokenizer_json.encode()
        write_folder(folder, self.family, {TOKENIZER_FILE: content}, name=self.bpe.name, order=self.order)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See :class:`~.protocol.Compressor`."""
        manifest, files = read_folder(folder, cls.family, [TOKENIZER_FILE])
        if manifest.get("order") not in list(Order):
            raise ProxyByteError(f"{folder}: its order {manifest.get('order')!r} is not one of {', '.join(Order)}")
        name = str(manifest.get("name", "bpe"))
        bpe = BpeCompressor(files[TOKENIZER_FILE].decode(), name, Path(folder) / TOKENIZER_FILE)
        return cls(bpe, Order(manifest["order"]))


def _numbers(bpe: BpeCompressor, order: Order) -> np.ndarray:
    """The number that each token is written as, int64 of shape ``(num_symbols,)``."""
    if order is Order.PLAIN:
        return np.arange(bpe.num_symbols)
    if order is Order.GRAY_PUBLISHED:
        texts = bpe.decoded_texts()
        by_spelling = sorted(range(bpe.num_symbols), key=lambda code: (texts[code], code))
    else:
        spelled = bpe.spelled
        if spelled is None:
            raise ProxyByteError(
                f"{bpe.name}: tokens sort by the bytes they spell, and this vocabulary is not byte-level"
            )
        # Tokens that spell nothing come last, so that they lie between no two others.
        by_spelling = sorted(
            range(bpe.num_symbols), key=lambda code: (spelled[code] is None, spelled[code] or b"", code)
        )
    places = np.empty(bpe.num_symbols, dtype=np.int64)
    places[by_spelling] = np.arange(bpe.num_symbols)
    return places ^ (places >> 1)
