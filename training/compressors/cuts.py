"""Where a long document may be cut so that the parts' codes are the document's: memory then follows the part.

A byte-level BPE codes each piece of text by itself, so that a cut between two pieces changes nothing, provided that
each side is cut into the same pieces without the other. For the patterns of :data:`PATTERNS` that is so

* between an ASCII letter and one space that an ASCII letter follows: a piece holds a space only as its first character
  or among other whitespace, and this one begins the piece of the word after it;
* after a line feed between a character that is no whitespace and a word character: the line feed ends what whitespace
  or punctuation it belongs to, and no piece of these patterns that holds one goes on with a letter, a digit or ``_``.

No look-ahead sees past either place, for no run of whitespace ends the left part with more than that line feed.
"""

import re
from collections.abc import Iterator

from .byte_level import (
    CODE_PATTERN,
    GPT2_ONE_DIGIT_PATTERN,
    GPT2_PATTERN,
    GPT4_PATTERN,
    O200K_PATTERN,
    QWEN2_PATTERN,
)

PATTERNS = (CODE_PATTERN, GPT2_PATTERN, GPT2_ONE_DIGIT_PATTERN, GPT4_PATTERN, QWEN2_PATTERN, O200K_PATTERN)
PART_BYTES = 8 << 20
"""What a document is coded in parts of."""
LONGEST_UNCUT = 16 << 20
"""Bytes without such a place that are still coded: one piece of text takes 40 times its length of memory."""
_NEAR = 1 << 12
_PLACE = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])|(?<=[^\s]\n)(?=\w)")


class NoCut(Exception):
    """A run of bytes longer than :data:`LONGEST_UNCUT` in which the document cannot be cut."""


def parts_of(document: bytes, part_bytes: int) -> Iterator[bytes]:
    """``document`` in order, in parts of about ``part_bytes`` that can be coded one by one.

    Raises:
        NoCut: at a run that is too long to be coded at once.
    """
    start, size = 0, part_bytes
    while len(document) - start > size:
        end = _last_cut(document, start, start + size)
        if end is not None:
            yield document[start:end]
            start, size = end, part_bytes
        elif size >= LONGEST_UNCUT:
            raise NoCut
        else:
            size *= 2
    yield document[start:]


def _last_cut(document: bytes, start: int, end: int) -> int | None:
    """The last place in ``document[start:end]``, after its first byte, or ``None``."""
    for first in (max(start, end - _NEAR), start):
        text = document[first:end].decode("utf-8", "surrogateescape")
        # The last characters may be parts of one, and what follows the last is not seen.
        places = [match.start() for match in _PLACE.finditer(text, 4, max(4, len(text) - 4))]
        if places:
            return first + len(text[: places[-1]].encode("utf-8", "surrogateescape"))
    return None
