"""What may follow in the view that a text is in: raw text never turns into compressed symbols or stray sentinels."""

from enum import IntEnum

import torch
from transformers import LogitsProcessor

from .symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_SPECIALS, Special


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
