"""BPE, or any Hugging Face tokenizer, as a compressor. Code ``c`` is the tokenizer's id ``c``.

A byte-level BPE runs on gigatoken where that cuts text in the same way (:mod:`.gigatoken_coder`), else on tiktoken
where equal ids are certain (:mod:`.byte_level`), else on tokenizers, which is the reference for both and many times
slower. Every document is checked: one whose symbols do not spell it again (a normaliser changed it, a character was
unknown) is refused with the reason, never altered.

Special tokens are never read from text: a document that spells ``<|endoftext|>`` is coded as those characters. Bytes
that are not UTF-8 are coded one byte token each where the vocabulary is byte-level and fast, and refused where not.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np

from proxybyte.artefacts import TOKENIZER_FILE

from . import cuts
from .byte_level import NotByteLevel, RankPlan, plan_ranks
from .gigatoken_coder import PATTERNS, GigatokenCoder, is_installed
from .protocol import CannotEncode, check_codes, code_dtype, encode_in_threads, read_folder, write_folder
from .reference_coder import ReferenceCoder, parse_tokenizer, read_tokenizer
from .tiktoken_coder import TiktokenCoder, TooLongForTiktoken, split_broken

_PROBE = (
    "def f(x, *args):\n\t'''It's  ok'''\n\n    return [1234567890, 0xFF, 3.14e-10]  # café naïve 東京 नमस्ते 🙂🏽\r\n"
    "if(x!=y)->{'a':b};;;   \n\n\n   we'Ll DON'T  \x00\x1f\x7f\u00a0\u2028\u3000 ½ ² Ⅷ ſ K \n"
)


class Engine(StrEnum):
    """What codes text, the fastest first; each gives the ids of the last."""

    GIGATOKEN = "gigatoken"
    TIKTOKEN = "tiktoken"
    TOKENIZERS = "tokenizers"


class BpeCompressor:
    """A tokenizer behind the :class:`~.protocol.Compressor` protocol.

    Args:
        tokenizer_json: text of its ``tokenizer.json``.
        name: what to call it in tables.
        where: the file, for messages.
        fastest: the fastest engine to run on.

    Attributes:
        engine: what it runs on.
        slow_reason: why that is tokenizers; empty if it is a faster one.
        symbol_bytes: what each symbol spells (:class:`~.symbol_bytes.SpellsAlone`), if it is byte-level.

    Raises:
        ProxyByteError: if the text describes no tokenizer.
    """

    family = "bpe"
    lossless = True

    def __init__(
        self,
        tokenizer_json: str,
        name: str,
        where: Path | str = TOKENIZER_FILE,
        fastest: Engine = Engine.GIGATOKEN,
    ) -> None:
        self.name = name
        self.tokenizer_json = tokenizer_json
        tokenizer = parse_tokenizer(tokenizer_json, where)
        spec = json.loads(tokenizer.to_str())
        self._reference = ReferenceCoder(tokenizer, spec)
        self.symbol_bytes = self._reference.symbol_bytes
        self._fast, self.slow_reason = _fast_way(spec, self._reference, fastest)
        self.engine = Engine.TOKENIZERS if self._fast is None else self._fast.engine
        self.num_symbols = self._reference.num_symbols
        self._dtype = code_dtype(self.num_symbols)

    @classmethod
    def from_tokenizer(cls, path: Path) -> Self:
        """The tokenizer in a ``tokenizer.json``, or in a model's folder.

        Raises:
            ProxyByteError: if there is none, or it cannot be read.
        """
        path = Path(path).resolve()
        return cls(read_tokenizer(path).to_str(), path.name if path.is_dir() else path.parent.name, path)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tokenizer_json, self.name)

    @property
    def spelled(self) -> list[bytes | None] | None:
        """The bytes of each symbol, None where it is special or unused; None for the whole if not byte-level."""
        return self._reference.spelled

    def pieces(self) -> list[str | None]:
        """How the vocabulary writes each symbol, None where it is special or unused."""
        return self._reference.pieces()

    def decoded_texts(self) -> list[str]:
        """What the tokenizers library writes for each id alone: U+FFFD for parts of characters, specials by name."""
        return self._reference.decoded_texts()

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """See :class:`~.protocol.Compressor`."""
        if self._fast is not None:
            return encode_in_threads(self._encode_fast, documents)
        return self._encode_by_reference(documents)

    def _encode_fast(self, document: bytes) -> np.ndarray | CannotEncode:
        assert self._fast is not None
        if len(document) <= cuts.PART_BYTES or not self._fast.in_parts:
            return self._encode_part(document)
        codes: list[np.ndarray] = []
        try:
            for part in cuts.parts_of(document, cuts.PART_BYTES):
                code = self._encode_part(part)
                if isinstance(code, CannotEncode):
                    return code
                codes.append(code)
        except cuts.NoCut:
            return self._refuse(f"more than {cuts.LONGEST_UNCUT:,} bytes in it are one run without a word's end")
        return np.concatenate(codes)

    def _encode_part(self, document: bytes) -> np.ndarray | CannotEncode:
        try:
            codes = self._encode_valid(document.decode())
        except UnicodeDecodeError:
            codes = self._encode_broken(document)
        if codes is None:
            return self._refuse("its normaliser would change the text")
        if int(self._reference.lengths[codes].sum()) != len(document):
            # Symbols spell pieces of the text in their order, so that equal length is equality. tiktoken leaves out
            # what its pattern does not match; tokenizers does not.
            return self._encode_by_reference([document])[0]
        return codes.astype(self._dtype)

    def _encode_valid(self, text: str) -> np.ndarray | None:
        assert self._fast is not None
        if self._reference.changed_by_normaliser(text):
            return None
        if not self._reference.holds_added_token(text):
            try:
                return self._fast.coder.encode_text(text)
            except TooLongForTiktoken:
                pass
        return self._reference.encode([text])[0]

    def _encode_broken(self, document: bytes) -> np.ndarray | None:
        assert self._fast is not None
        codes: list[np.ndarray] = []
        for place, part in enumerate(split_broken(document)):
            if place % 2:
                codes.append(self._fast.plan.encode_byte_tokens(part.encode("utf-8", "surrogateescape")))
                continue
            valid = self._encode_valid(part)
            if valid is None:
                return None
            codes.append(valid)
        return np.concatenate(codes)

    def _encode_by_reference(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        results: list[np.ndarray | CannotEncode] = []
        texts: list[str] = []
        for document in documents:
            try:
                texts.append(document.decode())
                results.append(np.zeros(0, dtype=self._dtype))
            except UnicodeDecodeError as error:
                results.append(self._refuse(f"byte {error.start} is not UTF-8, and this tokenizer reads only text"))
        coded = zip(texts, self._reference.encode(texts), strict=True)
        for place, result in enumerate(results):
            if isinstance(result, np.ndarray):
                text, codes = next(coded)
                why = self._reference.why_not(text, codes)
                results[place] = codes.astype(self._dtype) if why is None else self._refuse(why)
        return results

    def _refuse(self, why: str) -> CannotEncode:
        return CannotEncode(f"{self.name}: {why}")

    def decode(self, codes: np.ndarray) -> bytes:
        """See :class:`~.protocol.Compressor`."""
        return self._reference.decode(check_codes(codes, self.num_symbols, self.name))

    def borders(self, codes: np.ndarray) -> np.ndarray | None:
        """See :class:`~.protocol.Compressor`."""
        return self._reference.borders(check_codes(codes, self.num_symbols, self.name))

    def save(self, folder: Path) -> None:
        """See :class:`~.protocol.Compressor`."""
        write_folder(folder, self.family, {TOKENIZER_FILE: self.tokenizer_json.encode()}, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See :class:`~.protocol.Compressor`."""
        manifest, files = read_folder(folder, cls.family, [TOKENIZER_FILE])
        return cls(files[TOKENIZER_FILE].decode(), str(manifest.get("name", cls.family)), Path(folder) / TOKENIZER_FILE)


@dataclass(frozen=True)
class _FastWay:
    """An engine, and whether long documents go through it in parts (:mod:`.cuts`)."""

    engine: Engine
    coder: GigatokenCoder | TiktokenCoder
    plan: RankPlan
    in_parts: bool


def _fast_way(spec: dict, reference: ReferenceCoder, fastest: Engine) -> tuple[_FastWay | None, str]:
    """The fastest way that certainly gives the same ids, else None and the reason."""
    if fastest is Engine.TOKENIZERS:
        return None, "it was asked for"
    if reference.spelled is None:
        return None, "its symbols are not byte-level"
    try:
        plan = plan_ranks(spec, reference.spelled)
    except NotByteLevel as reason:
        return None, str(reason)
    makers: dict[Engine, Callable[[], GigatokenCoder | TiktokenCoder]] = {Engine.TIKTOKEN: lambda: TiktokenCoder(plan)}
    if fastest is Engine.GIGATOKEN and plan.pattern in PATTERNS and is_installed():
        makers = {Engine.GIGATOKEN: lambda: GigatokenCoder(spec, plan), **makers}
    in_parts = plan.pattern in cuts.PATTERNS and reference.sees_no_further_than_pieces
    text = reference.normalised(_PROBE)
    wanted = reference.encode([text])[0]
    for engine, make in makers.items():
        coder = make()
        if np.array_equal(coder.encode_text(text), wanted):
            return _FastWay(engine, coder, plan, in_parts), ""
    return None, "tiktoken gave other ids on a probe"
