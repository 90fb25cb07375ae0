"""What may follow in the view that a text is in: raw text never turns into compressed symbols or stray sentinels."""

from enum import IntEnum
from typing import Any

import torch
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList

from .configuration_proxybyte import ProxyByteConfig
from .symbols import BYTE_OFFSET, COMPRESSED_OFFSET, Special


class _State(IntEnum):
    """Where a row stands after its last sentinel; rows of the table of :class:`ViewLogitsProcessor`."""

    RAW = 0
    COMPRESSED = 1
    CLOSED = 2


_STATE_AFTER = {
    Special.RAW_OPEN: _State.RAW,
    Special.COMPRESSED_OPEN: _State.COMPRESSED,
    Special.RAW_CLOSE: _State.CLOSED,
    Special.COMPRESSED_CLOSE: _State.CLOSED,
}


def _states(input_ids: torch.Tensor) -> torch.Tensor:
    """State of each row of ``input_ids`` ``(B, T)``, shape ``(B,)``; raw where it holds no sentinel."""
    states = torch.full(input_ids.shape[:1], int(_State.RAW), device=input_ids.device)
    last = torch.full_like(states, -1)
    index = torch.arange(input_ids.shape[1], device=input_ids.device)
    for sentinel, state in _STATE_AFTER.items():
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
        allowed = torch.zeros(len(_State), vocab_size, dtype=torch.bool)
        allowed[:, Special.EOS] = True
        allowed[_State.RAW, BYTE_OFFSET:COMPRESSED_OFFSET] = True
        allowed[_State.RAW, Special.RAW_CLOSE] = True
        allowed[_State.RAW, Special.END_OF_TURN] = end_of_turn
        allowed[_State.COMPRESSED, COMPRESSED_OFFSET:] = True
        allowed[_State.COMPRESSED, Special.COMPRESSED_CLOSE] = True
        self.forbidden = ~allowed.to(device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Scores ``(B, V)`` of the symbol after ``input_ids`` ``(B, T)``."""
        states = _states(input_ids).to(scores.device)
        self.forbidden = self.forbidden.to(scores.device)
        scores = scores.masked_fill(self.forbidden[states], -torch.inf)
        # A closed row has one way on, even where a minimum length forbids to end.
        closed = states == _State.CLOSED
        scores[:, Special.EOS] = scores[:, Special.EOS].masked_fill(closed, 0.0)
        return scores


class ProxyByteGenerationMixin(GenerationMixin):
    """Transformers' own ``generate`` under the rule of :class:`ViewLogitsProcessor`, whatever the caller passes."""

    config: ProxyByteConfig

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.LongTensor | None, dict[str, Any]]:
        # The one place that sees every prompt once. Text never leaves the raw view, so where none starts in the
        # compressed one the head need not compute the compressed symbols: most of a small model's work for a byte.
        if input_ids is not None:
            only_raw = not bool((_states(input_ids) == _State.COMPRESSED).any())
            model_kwargs.setdefault("raw_symbols_only", only_raw)
        return super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )

    def _get_logits_processor(  # type: ignore[override]
        self, generation_config, *args: Any, logits_processor: LogitsProcessorList | None = None, **kwargs: Any
    ) -> LogitsProcessorList:
        # After the caller's processors, so that none brings a symbol back; before top-k and top-p, so that these
        # choose among symbols that may follow.
        ends = generation_config.eos_token_id
        end_of_turn = int(Special.END_OF_TURN) in (ends if isinstance(ends, list) else [ends])
        rule = ViewLogitsProcessor(self.config.vocab_size, end_of_turn, kwargs.get("device"))
        kwargs["logits_processor"] = LogitsProcessorList([*(logits_processor or []), rule])
        return super()._get_logits_processor(generation_config, *args, **kwargs)  # type: ignore[misc]
