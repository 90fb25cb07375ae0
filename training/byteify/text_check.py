"""Whether a tokenizer keeps text: what it spells must be what it read."""

from proxybyte.errors import ProxyByteError

from ..compressors.bpe import BpeCompressor
from ..compressors.protocol import CannotEncode

_MUST = (
    "The Quick BROWN fox, and a McDonald's: it's 3.14 (or 1,000,000)!",
    "def f(x, *args):\n\tif x != 0:\r\n        return {'a': [x ** 2, 0xFF]}  # two  spaces\n\n\n",
    " leading and trailing spaces  ",
    "café naïve Ünïcode 東京 नमस्ते русский العربية \U0001f642\U0001f3fd ½ ² ﬁ Ⅷ ſ",
    "\x00\x1f\x7f\u00a0\u2028\u3000 \t\v\f",
    "",
)
SAMPLE = _MUST[0] + "\n" + _MUST[1]
"""A text for comparing models."""
_MAY = "cafe\u0301"
"""Text that is not in composed form: families whose tokenizer composes (Qwen) lose it, and it then stays raw."""


def check_keeps_text(compressor: BpeCompressor, given: str) -> None:
    """Refuse a tokenizer that changes ordinary text.

    Raises:
        ProxyByteError: naming the first text that does not come back.
    """
    for text, codes in zip(_MUST, compressor.encode_batch([text.encode() for text in _MUST]), strict=True):
        if isinstance(codes, CannotEncode):
            raise ProxyByteError(
                f"{given}: its tokenizer loses text, so it cannot stand for it ({codes}; for example {text[:24]!r}): "
                "choose a base with a byte-level or byte-fallback tokenizer"
            )


def composes_text(compressor: BpeCompressor) -> bool:
    """Whether it refuses decomposed text alone, which documents then keep as raw bytes."""
    return isinstance(compressor.encode_batch([_MAY.encode()])[0], CannotEncode)
