"""Any Hugging Face tokenizer by the tokenizers library: the reference that the fast way must equal."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from proxybyte.artefacts import TOKENIZER_FILE
from proxybyte.errors import ProxyByteError
from proxybyte.model_loading import NO_CODE
from proxybyte.training.texts import batches

from .byte_level import spelled_bytes
from .symbol_bytes import SymbolBytes

_BATCH_CHARACTERS = 8 << 20
"""tokenizers keeps about 100 bytes for each symbol of a batch."""
_UNICODE_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def parse_tokenizer(content: str, where: Path | str) -> Tokenizer:
    """The tokenizer that the text of a ``tokenizer.json`` describes.

    Raises:
        ProxyByteError: if it describes none.
    """
    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # the library raises bare Exception
        raise ProxyByteError(f"{where}: is no tokenizer.json that the tokenizers library reads ({error})") from None


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a ``tokenizer.json``, or in a model's folder (converted by Transformers if it has none).

    Raises:
        ProxyByteError: if there is none, or it cannot be read.
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if file.exists() or not path.is_dir():
        try:
            return parse_tokenizer(file.read_text(encoding="utf-8-sig"), file)
        except (OSError, UnicodeDecodeError) as error:
            raise ProxyByteError(f"{file}: cannot be read ({error})") from None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, **NO_CODE).backend_tokenizer
    except Exception as error:  # whatever a foreign folder provokes
        raise ProxyByteError(f"{path}: Transformers reads no fast tokenizer from this folder ({error})") from None


class ReferenceCoder:
    """A tokenizer whose every answer is checked against the document.

    Args:
        tokenizer: used with truncation and padding off; special tokens are not read from text.
        spec: what the tokenizers library writes as its ``tokenizer.json``.

    Attributes:
        num_symbols: highest id + 1.
        spelled: the bytes of each id, None where a special or nothing; None for the whole if it is not byte-level.
        symbol_bytes: the same as arrays.
        lengths: bytes of each id, guessed if it is not byte-level.
    """

    def __init__(self, tokenizer: Tokenizer, spec: dict) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.num_symbols: int = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.spelled = spelled_bytes(spec)
        self.symbol_bytes = None if self.spelled is None else SymbolBytes.of(self.spelled)
        guessed = self.symbol_bytes or SymbolBytes.of(_guessed_bytes(tokenizer, self.num_symbols))
        self.lengths = guessed.lengths
        self._forms = _normaliser_steps(spec)
        contents = [entry["content"] for entry in spec["added_tokens"] if not entry["special"]]
        # The library looks for an added token's own spelling, or for what its normaliser makes of it.
        parsed = {*contents, *map(self.normalised, contents)}
        self._added = re.compile("|".join(map(re.escape, sorted(parsed)))) if parsed else None

    def pieces(self) -> list[str | None]:
        """How the vocabulary writes each id, None where it is special or unused."""
        specials = {code for code, added in self._tokenizer.get_added_tokens_decoder().items() if added.special}
        return [None if code in specials else self._tokenizer.id_to_token(code) for code in range(self.num_symbols)]

    def decoded_texts(self) -> list[str]:
        """What the library decodes each id alone to, special tokens too."""
        return [self._tokenizer.decode([code], skip_special_tokens=False) for code in range(self.num_symbols)]

    @property
    def sees_no_further_than_pieces(self) -> bool:
        """Whether neither its normaliser nor an added token reaches over the places where :mod:`.cuts` cuts."""
        return self._forms <= _UNICODE_FORMS and self._added is None

    def changed_by_normaliser(self, text: str) -> bool:
        """Whether the normaliser would change ``text``."""
        if not self._forms or (text.isascii() and self._forms <= _UNICODE_FORMS):
            return False
        return self.normalised(text) != text

    def normalised(self, text: str) -> str:
        """``text`` as the normaliser leaves it."""
        return self._tokenizer.normalizer.normalize_str(text) if self._forms else text

    def holds_added_token(self, text: str) -> bool:
        """Whether ``text`` may spell an added token that is not special (these are cut out before anything else)."""
        return self._added is not None and self._added.search(text) is not None

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, uint32, not yet checked."""
        ids: list[np.ndarray] = []
        for batch in batches(texts, _BATCH_CHARACTERS):
            coded = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            ids.extend(np.array(encoding.ids, dtype=np.uint32) for encoding in coded)
        return ids

    def why_not(self, text: str, codes: np.ndarray) -> str | None:
        """Why ``codes`` do not stand for ``text``; None if they do."""
        try:
            if self.decode(codes) == text.encode():
                return None
        except ProxyByteError as error:
            return str(error)
        if self.changed_by_normaliser(text):
            return f"its normaliser ({', '.join(sorted(self._forms))}) would change the text"
        return "its symbols do not spell the text again"

    def decode(self, codes: np.ndarray) -> bytes:
        """Bytes of ``codes``, which are in range.

        Raises:
            ProxyByteError: at a special token, which spells nothing.
        """
        if self.symbol_bytes is None:
            return self._tokenizer.decode(codes.tolist(), skip_special_tokens=False).encode()
        spells = self.lengths[codes] > 0
        if not spells.all():
            bad = int(codes[np.argmin(spells)])
            token = self._tokenizer.id_to_token(bad)
            raise ProxyByteError(f"symbol {bad} ({token}) is special or unused and spells no text")
        return self.symbol_bytes.spell(codes)

    def borders(self, codes: np.ndarray) -> np.ndarray | None:
        """Byte offset at the end of each symbol, int64; None where the tokenizer does not tell."""
        ends = np.cumsum(self.lengths[codes])
        if self.spelled is not None or codes.size == 0:
            return ends
        # SentencePiece: the first piece carries a space that the text does not have.
        surplus = int(ends[-1]) - len(self.decode(codes))
        return ends - surplus if surplus in (0, 1) else None


def _normaliser_steps(spec: dict) -> set[str]:
    normaliser = spec["normalizer"]
    return set() if normaliser is None else {step["type"] for step in normaliser.get("normalizers", [normaliser])}


def _guessed_bytes(tokenizer: Tokenizer, num_symbols: int) -> list[bytes]:
    """What SentencePiece's spelling says of each id; :meth:`ReferenceCoder.borders` checks the sum."""
    tokens = [tokenizer.id_to_token(code) or "" for code in range(num_symbols)]
    return [b"?" if _BYTE_TOKEN.fullmatch(token) else token.replace("▁", " ").encode() for token in tokens]
