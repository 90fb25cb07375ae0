"""Logits processors: what may follow in the view that a text is in, and what keeps it valid UTF-8.

Raw text never turns into compressed symbols or stray sentinels. Well-formed byte sequences are those of the Unicode
Standard, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF, the same set that Python's strict decoder
accepts.
"""

from enum import IntEnum

import numpy as np
import torch
from transformers import LogitsProcessor

from .symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_BYTES, NUM_RAW_SYMBOLS, NUM_SPECIALS, Special


class ViewState(IntEnum):
    """Where a row stands after its last sentinel; rows of the table of :class:`ViewLogitsProcessor`."""

    RAW = 0
    COMPRESSED = 1
    CLOSED = 2


STATE_AFTER = {
    Special.BOS: ViewState.RAW,
    Special.RAW_OPEN: ViewState.RAW,
    Special.COMPRESSED_OPEN: ViewState.COMPRESSED,
    Special.RAW_CLOSE: ViewState.CLOSED,
    Special.COMPRESSED_CLOSE: ViewState.CLOSED,
}

_STATE_OF_SYMBOL = torch.full((NUM_SPECIALS + 1,), -1)
for _sentinel, _state in STATE_AFTER.items():
    _STATE_OF_SYMBOL[_sentinel] = int(_state)


def view_states(input_ids: torch.Tensor) -> torch.Tensor:
    """State of each row of ``input_ids`` ``(B, T)``, shape ``(B,)``; raw where it holds no sentinel.

    Continuous batching shows the last symbol of each text alone, shape ``(B,)``, and that is enough: a sentinel says
    the state itself, a compressed symbol stands in the compressed view alone, a byte in the raw one.
    """
    if input_ids.ndim == 1:
        compressed = int(ViewState.COMPRESSED)
        return view_states(input_ids[:, None]).masked_fill(input_ids >= COMPRESSED_OFFSET, compressed)
    if not input_ids.shape[1]:
        return torch.full(input_ids.shape[:1], int(ViewState.RAW), device=input_ids.device)
    table = _STATE_OF_SYMBOL.to(input_ids.device)
    # A symbol's state, if it is a sentinel, above all that come before it.
    found = table[input_ids.clamp(max=len(table) - 1)]
    last = torch.where(found >= 0, torch.arange(input_ids.shape[1], device=input_ids.device), -1).argmax(dim=1)
    state = found.gather(1, last[:, None]).squeeze(1)
    return state.where(state >= 0, int(ViewState.RAW))


class ViewLogitsProcessor(LogitsProcessor):
    """Scores of symbols that cannot follow become minus infinity.

    A row inside ``<raw>`` (or without any sentinel) goes on with bytes, ``</raw>`` or ``<eos>``, and with the chat's
    end of turn where that ends generation; one inside ``<comp>`` with compressed symbols, ``</comp>`` or ``<eos>``;
    a closed one with ``<eos>`` alone.

    Args:
        vocab_size: columns of the scores.
        end_of_turn: whether ``<|eot_id|>`` ends generation.
        device: of the scores.
    """

    # Of the last symbol of each text alone: see view_states.
    supports_continuous_batching = True

    def __init__(self, vocab_size: int, end_of_turn: bool, device: torch.device | str | None = None) -> None:
        allowed = torch.zeros(len(ViewState), vocab_size, dtype=torch.bool)
        allowed[:, Special.EOS] = True
        allowed[ViewState.RAW, BYTE_OFFSET:COMPRESSED_OFFSET] = True
        allowed[ViewState.RAW, Special.RAW_CLOSE] = True
        allowed[ViewState.RAW, Special.END_OF_TURN] = end_of_turn
        allowed[ViewState.COMPRESSED, COMPRESSED_OFFSET:] = True
        allowed[ViewState.COMPRESSED, Special.COMPRESSED_CLOSE] = True
        self.forbidden = ~allowed.to(device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Scores of the symbol after ``input_ids`` ``(B, T)``, shape ``(B, V)`` or fewer of its columns."""
        states = view_states(input_ids).to(scores.device)
        self.forbidden = self.forbidden.to(scores.device)
        scores = scores.masked_fill(self.forbidden[:, : scores.shape[1]][states], -torch.inf)
        # A closed row has one way on, even where a minimum length forbids to end.
        closed = states == ViewState.CLOSED
        scores[:, Special.EOS] = scores[:, Special.EOS].masked_fill(closed, 0.0)
        return scores


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
