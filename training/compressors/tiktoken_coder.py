"""The fast way through a byte-level BPE: tiktoken, on every core, for any bytes."""

import re

import numpy as np
import tiktoken

from .byte_level import RankPlan

LONGEST_WHITESPACE = 1 << 17
"""tiktoken's regex engine keeps one state for each character before a look-ahead and dies near 1,000,000 of them."""

_BROKEN_BYTES = re.compile("([\udc80-\udcff]+)")
_WHITESPACE = re.compile(r"\s+")


class TooLongForTiktoken(Exception):
    """A run of whitespace so long that tiktoken would overflow its stack."""


class TiktokenCoder:
    """Text to a tokenizer's ids by tiktoken.

    Args:
        plan: the tokenizer as ranks and a pattern.
    """

    def __init__(self, plan: RankPlan) -> None:
        self._encoding = tiktoken.Encoding(
            "proxybyte", pat_str=plan.pattern, mergeable_ranks=plan.ranks, special_tokens={}
        )
        self._code_of_rank = plan.code_of_rank
        self._looks_ahead = "(?!" in plan.pattern

    def encode_text(self, text: str) -> np.ndarray:
        """Ids of ``text``, uint32 of shape ``(n_symbols,)``.

        Raises:
            TooLongForTiktoken: if the text must go through tokenizers instead.
        """
        if self._looks_ahead and len(text) > LONGEST_WHITESPACE:
            longest = max((len(run) for run in _WHITESPACE.findall(text)), default=0)
            if longest > LONGEST_WHITESPACE:
                raise TooLongForTiktoken
        ranks = self._encoding.encode_ordinary(text)
        return self._code_of_rank[np.fromiter(ranks, dtype=np.uint32, count=len(ranks))]


def split_broken(document: bytes) -> list[str]:
    """``document`` as text and runs of bytes that are not UTF-8, in turns, starting with text (maybe empty).

    A broken byte ``b`` is the lone surrogate U+DC00 + ``b``, as in Python's ``surrogateescape``.
    """
    return _BROKEN_BYTES.split(document.decode("utf-8", "surrogateescape"))
