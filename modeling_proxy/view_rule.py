"""What may follow in the view that a text is in: raw text never turns into compressed symbols or stray sentinels."""

from enum import IntEnum

import torch
from transformers import LogitsProcessor

from .symbols import BYTE_OFFSET, COMPRESSED_OFFSET, Special


class ViewState(IntEnum):
    """Where a row stands after its last sentinel; rows of the table of :class:`ViewLogitsProcessor`."""

    RAW = 0
    COMPRESSED = 1
    CLOSED = 2


STATE_AFTER = {
    Special.RAW_OPEN: ViewState.RAW,
    Special.COMPRESSED_OPEN: ViewState.COMPRESSED,
    Special.RAW_CLOSE: ViewState.CLOSED,
    Special.COMPRESSED_CLOSE: ViewState.CLOSED,
}


def view_states(input_ids: torch.Tensor) -> torch.Tensor:
    """State of each row of ``input_ids`` ``(B, T)``, shape ``(B,)``; raw where it holds no sentinel."""
    states = torch.full(input_ids.shape[:1], int(ViewState.RAW), device=input_ids.device)
    last = torch.full_like(states, -1)
    index = torch.arange(input_ids.shape[1], device=input_ids.device)
    for sentinel, state in STATE_AFTER.items():
        where = torch.where(input_ids == sentinel, index, -1)
        found = where.amax(dim=1) if input_ids.shape[1] else last
        states = torch.where(found > last, int(state), states)
        last = torch.maximum(last, found)
    return states


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
        """Scores ``(B, V)`` of the symbol after ``input_ids`` ``(B, T)``."""
        states = view_states(input_ids).to(scores.device)
        self.forbidden = self.forbidden.to(scores.device)
        scores = scores.masked_fill(self.forbidden[states], -torch.inf)
        # A closed row has one way on, even where a minimum length forbids to end.
        closed = states == ViewState.CLOSED
        scores[:, Special.EOS] = scores[:, Special.EOS].masked_fill(closed, 0.0)
        return scores
