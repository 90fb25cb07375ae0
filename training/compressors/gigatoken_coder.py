"""The fastest way through a byte-level BPE: gigatoken (the extra ``fast``), where its cut of the text is known alike.

gigatoken cuts text by a hand-written program for each of a few patterns, refuses the others, and remembers the pieces
that it has seen. With those of :data:`PATTERNS` its ids are those of the tokenizers library in the property tests and
on every character of Unicode (``tests/training/compressors/test_gigatoken.py``); no other is taken.
"""

import json
from importlib.util import find_spec

import numpy as np
import psutil

from .byte_level import GPT2_PATTERN, GPT4_PATTERN, O200K_PATTERN, QWEN2_PATTERN, RankPlan

PATTERNS = (GPT2_PATTERN, GPT4_PATTERN, QWEN2_PATTERN, O200K_PATTERN)
REMEMBERED_BYTES = 192 << 20
"""How far memory may grow by the pieces that it remembers before it forgets them all."""
LOOKED_AT_EVERY = 4 << 20
"""Bytes of text after which memory is looked at: the worst text adds 16 bytes for each of its own."""


def is_installed() -> bool:
    """Whether gigatoken can be imported."""
    return find_spec("gigatoken") is not None


class GigatokenCoder:
    """Text to a tokenizer's ids by gigatoken.

    Args:
        spec: the tokenizer as the tokenizers library writes it; its normaliser and added tokens are left to the caller.
        plan: the same as ranks and a pattern, which is one of :data:`PATTERNS`.
    """

    def __init__(self, spec: dict, plan: RankPlan) -> None:
        by_pattern = {"type": "Split", "pattern": {"Regex": plan.pattern}, "behavior": "Isolated", "invert": False}
        as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        steps = {"type": "Sequence", "pretokenizers": [by_pattern, as_bytes]}
        bare = {**spec, "pre_tokenizer": steps, "normalizer": None, "post_processor": None, "added_tokens": []}
        self._content = json.dumps(bare)
        self._process = psutil.Process()
        self._unlooked = self._resident = 0
        self._forget()

    def encode_text(self, text: str) -> np.ndarray:
        """Ids of ``text``, uint32 of shape ``(n_symbols,)``."""
        self._unlooked += len(text)
        if self._unlooked >= LOOKED_AT_EVERY:
            self._unlooked = 0
            if self._process.memory_info().rss - self._resident > REMEMBERED_BYTES:
                self._forget()
        return self._coder.encode(text)

    def _forget(self) -> None:
        """Begin anew, with nothing remembered."""
        from gigatoken.gigatoken_rs import load_hf_json

        self._coder = load_hf_json(self._content)
        self._unlooked = 0
        self._resident = self._process.memory_info().rss
