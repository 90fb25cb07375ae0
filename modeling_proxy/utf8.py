"""Valid UTF-8 as a byte automaton, and a logits processor that lets nothing else be generated.

Well-formed byte sequences are those of the Unicode Standard, table 3-7: no overlong forms, no surrogates, nothing
above U+10FFFF, the same set that Python's strict decoder accepts.
"""

from enum import IntEnum

import numpy as np
import torch
from transformers import LogitsProcessor

from .symbols import BYTE_OFFSET, NUM_BYTES, NUM_RAW_SYMBOLS


class Utf8State(IntEnum):
    """What the next byte must be. ``BORDER`` is the start of a character, ``INVALID`` has no way out."""

    BORDER = 0
    NEED_1 = 1
    NEED_2 = 2
    NEED_3 = 3
    AFTER_E0 = 4
    AFTER_ED = 5
    AFTER_F0 = 6
    AFTER_F4 = 7
    INVALID = 8


MISSING_BYTES = np.array([0, 1, 2, 3, 2, 2, 3, 3, 0])
"""For each state, how many bytes the character still needs."""
_LONGEST_PREFIX = 3


def _transitions() -> np.ndarray:
    table = np.full((len(Utf8State), NUM_BYTES), Utf8State.INVALID, dtype=np.int64)
    rows = [
        (Utf8State.BORDER, 0x00, 0x7F, Utf8State.BORDER),
        (Utf8State.BORDER, 0xC2, 0xDF, Utf8State.NEED_1),
        (Utf8State.BORDER, 0xE0, 0xEF, Utf8State.NEED_2),
        (Utf8State.BORDER, 0xE0, 0xE0, Utf8State.AFTER_E0),
        (Utf8State.BORDER, 0xED, 0xED, Utf8State.AFTER_ED),
        (Utf8State.BORDER, 0xF0, 0xF0, Utf8State.AFTER_F0),
        (Utf8State.BORDER, 0xF1, 0xF3, Utf8State.NEED_3),
        (Utf8State.BORDER, 0xF4, 0xF4, Utf8State.AFTER_F4),
        (Utf8State.NEED_1, 0x80, 0xBF, Utf8State.BORDER),
        (Utf8State.NEED_2, 0x80, 0xBF, Utf8State.NEED_1),
        (Utf8State.NEED_3, 0x80, 0xBF, Utf8State.NEED_2),
        (Utf8State.AFTER_E0, 0xA0, 0xBF, Utf8State.NEED_1),
        (Utf8State.AFTER_ED, 0x80, 0x9F, Utf8State.NEED_1),
        (Utf8State.AFTER_F0, 0x90, 0xBF, Utf8State.NEED_2),
        (Utf8State.AFTER_F4, 0x80, 0x8F, Utf8State.NEED_2),
    ]
    for state, first, last, following in rows:
        table[state, first : last + 1] = following
    return table


UTF8_TRANSITIONS = _transitions()
"""``UTF8_TRANSITIONS[state, byte]`` is the next state; shape ``(9, 256)``, int64."""


def _resynchronising() -> np.ndarray:
    """Next state for each symbol below 320, where what cannot continue starts anew; shape ``(9, 320)``."""
    table = np.full((len(Utf8State), NUM_RAW_SYMBOLS), Utf8State.BORDER, dtype=np.int64)
    first = UTF8_TRANSITIONS[Utf8State.BORDER]
    anew = np.where(first == Utf8State.INVALID, Utf8State.BORDER, first)
    table[:, BYTE_OFFSET:] = np.where(UTF8_TRANSITIONS == Utf8State.INVALID, anew, UTF8_TRANSITIONS)
    return table


class Utf8LogitsProcessor(LogitsProcessor):
    """Lets through only what keeps the output valid UTF-8; anything that is no byte only between characters.

    Its state is read off the last three symbols, so it holds for any row order: sampling, beams, left padding,
    drafts. A prompt that ends inside a character is completed; one that ends in bytes that start no character is
    left behind, and what follows it is valid by itself.

    Args:
        max_length: length, prompt included, at which generation is cut off (``max_length`` of ``generate``, or the
            prompt's length plus ``max_new_tokens``). A character that would be cut in two there is not begun.
            Without it the last character may stay unfinished where generation runs into the limit.
    """

    def __init__(self, max_length: int | None = None):
        self.max_length = max_length
        self._step = torch.from_numpy(_resynchronising())
        self._allowed = torch.from_numpy(UTF8_TRANSITIONS != Utf8State.INVALID)
        self._missing_after = torch.from_numpy(MISSING_BYTES[UTF8_TRANSITIONS])

    def states(self, input_ids: torch.Tensor) -> torch.Tensor:
        """State after each row of ``input_ids``, shape ``(B, T)`` to ``(B,)``."""
        self._step = self._step.to(input_ids.device)
        state = torch.zeros(len(input_ids), dtype=torch.long, device=input_ids.device)
        for symbols in input_ids[:, -_LONGEST_PREFIX:].unbind(1):
            state = torch.where(symbols < NUM_RAW_SYMBOLS, self._step[state, symbols.clamp(max=NUM_RAW_SYMBOLS - 1)], 0)
        return state

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Scores of shape ``(B, V)`` with ``-inf`` where the next symbol would break the output."""
        self._allowed, self._missing_after = self._allowed.to(scores.device), self._missing_after.to(scores.device)
        states = self.states(input_ids)
        bytes_allowed = self._allowed[states]
        if self.max_length is not None:
            fitting = bytes_allowed & (self._missing_after[states] <= self.max_length - input_ids.shape[1] - 1)
            # Nothing fits only where the prompt itself was cut too close to the limit.
            bytes_allowed = torch.where(fitting.any(1, keepdim=True), fitting, bytes_allowed)
        allowed = (states == Utf8State.BORDER)[:, None].repeat(1, scores.shape[1])
        allowed[:, BYTE_OFFSET:NUM_RAW_SYMBOLS] = bytes_allowed
        return scores.masked_fill(~allowed, -torch.inf)
