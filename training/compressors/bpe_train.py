"""Train a byte-level BPE on documents."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from proxybyte.errors import ProxyByteError

from .bpe import BpeCompressor
from .byte_level import CODE_PATTERN, GPT2_PATTERN, GPT4_PATTERN

NUM_BYTES = 256
LONGEST_PIECE = 1024
"""Characters that merges are learnt from at once: the trainer scans a whole piece at each merge in it, so that one
unbroken run of letters would take time by the square of its length. The encoder cuts no piece."""


class Split(StrEnum):
    """How text is cut into the pieces that merges stay within."""

    CODE = "code"
    GPT2 = "gpt2"
    GPT4 = "gpt4"

    @property
    def pattern(self) -> str:
        """Regular expression of a piece."""
        return _PATTERNS[self]


_PATTERNS = {Split.CODE: CODE_PATTERN, Split.GPT2: GPT2_PATTERN, Split.GPT4: GPT4_PATTERN}


@dataclass
class Seen:
    """What training read."""

    n_bytes: int = 0
    n_documents: int = 0
    not_utf8: int = 0

    def texts(self, documents: Iterable[bytes]) -> Iterator[str]:
        """The documents that are text; counts all."""
        for document in documents:
            self.n_documents += 1
            self.n_bytes += len(document)
            try:
                yield document.decode()
            except UnicodeDecodeError:
                self.not_utf8 += 1


def train_bpe(
    documents: Iterable[bytes],
    num_symbols: int,
    split: Split = Split.CODE,
    *,
    seen: Seen | None = None,
    progress: bool = False,
) -> BpeCompressor:
    """Train a byte-level BPE.

    Args:
        documents: text; documents that are not UTF-8 are left out, and counted in ``seen``.
        num_symbols: size of the vocabulary, the 256 bytes included.
        split: how text is cut into pieces.
        seen: filled in with what was read.
        progress: show the library's own bars (on a terminal's stderr).

    Returns:
        A compressor with ``num_symbols`` symbols, or fewer where the text has no more pairs to merge.

    Raises:
        ProxyByteError: if ``num_symbols`` is under 256 or there is no text.
    """
    if num_symbols < NUM_BYTES:
        raise ProxyByteError(f"a byte-level BPE has at least {NUM_BYTES} symbols, one a byte; {num_symbols} were asked")
    seen = Seen() if seen is None else seen
    tokenizer = Tokenizer(models.BPE())
    by_pattern = pre_tokenizers.Split(Regex(split.pattern), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bounded = pre_tokenizers.FixedLength(LONGEST_PIECE)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([by_pattern, bounded, as_bytes])  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=num_symbols, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=progress
    )
    tokenizer.train_from_iterator(seen.texts(documents), trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([by_pattern, as_bytes])  # type: ignore[assignment]
    if seen.n_documents == seen.not_utf8:
        raise ProxyByteError(f"none of the {seen.n_documents} documents is UTF-8 text: there is nothing to train on")
    return BpeCompressor(tokenizer.to_str(pretty=True), f"bpe-{tokenizer.get_vocab_size()}-{split}")
