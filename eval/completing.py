"""What a byte model writes after prompts, as bytes, cut at the very byte that completes a stop string."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria

from proxybyte import numbers
from proxybyte.byte_codec import decode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import Special


class StopAtBytes(StoppingCriteria):
    """Ends each row of a batch on its own, as soon as what it generated holds one of ``stops``.

    Works for any number of new symbols a step, for rows that are asked about at lengths of their own (drafting asks at
    every length of every row), and for stops that are part of a character.

    Args:
        stops: byte strings, none empty.
        prompt_length: columns of the prompt, padding included; a stop must lie behind them as a whole.
        after: see :func:`answer_of`; a stop counts in the answer alone.
    """

    def __init__(self, stops: Sequence[bytes], prompt_length: int, after: bytes | int | None = None):
        self.stops = stops
        self._after = after
        self.prompt_length = prompt_length
        self._looked_at = 0
        self._longest = max(map(len, stops), default=0)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        """Whether each row of ``input_ids`` ``(B, T)`` has just completed a stop, shape ``(B,)``."""
        generated = input_ids[:, self.prompt_length :]
        if self._after is not None:
            answers = (answer_of(row, self._after) for row in generated.cpu().numpy())
            ended = [answer is not None and any(stop in answer for stop in self.stops) for answer in answers]
            return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]
        unseen = max(0, min(self._looked_at, generated.shape[1] - 1) - self._longest + 1)
        self._looked_at = generated.shape[1]
        tails = (decode_bytes(row) for row in generated[:, unseen:].cpu().numpy())
        found = [any(stop in tail for stop in self.stops) for tail in tails]
        return torch.tensor(found, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


def answer_of(symbols: np.ndarray, after: bytes | int) -> bytes | None:
    """What ``symbols``, shape ``(n,)``, spell behind the last ``after`` (bytes, or a symbol), white space at its
    beginning left out; ``None`` while there is no ``after``.
    """
    if isinstance(after, bytes):
        _, found, answer = decode_bytes(symbols).rpartition(after)
        return answer.lstrip() if found else None
    places = np.flatnonzero(symbols == after)
    return decode_bytes(symbols[places[-1] + 1 :]).lstrip() if len(places) else None


def cut_at_stop(text: bytes, stops: Sequence[bytes]) -> bytes:
    """``text`` up to the first of ``stops`` in it, or all of it."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def check_temperature(value: float, name: str) -> None:
    """Refuse a temperature that no logits survive; 0, which is greedy decoding, is not for this function.

    Raises:
        ProxyByteError: with ``name``, the way the caller says it.
    """
    if not numbers.draws_at(value):
        raise ProxyByteError(f"{name} must be {numbers.TEMPERATURES}, not {value}")


@dataclass(frozen=True)
class ByteGeneration:
    """One batch's settings.

    Attributes:
        stops: byte strings that end a row; they are cut off.
        max_bytes: most symbols written.
        options: what ``generate`` is told besides.
        ends: symbols that end a row.
        after: bytes or a symbol that end the model's thinking: the answer is what follows the last of them.
    """

    stops: Sequence[bytes]
    max_bytes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    ends: tuple[int, ...] = (int(Special.EOS), int(Special.RAW_CLOSE))
    after: bytes | int | None = None


def complete_bytes(model: Any, prompts: Sequence[np.ndarray], plan: ByteGeneration) -> list[bytes]:
    """Continuation of each prompt (symbols with their opening, shape ``(n,)``), generated side by side."""
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), int(Special.PAD))
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, width - len(prompt) :] = 1
    written = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=plan.max_bytes,
        stopping_criteria=[StopAtBytes(plan.stops, width, plan.after)],
        eos_token_id=list(plan.ends),
        pad_token_id=int(Special.PAD),
        **plan.options,
    )
    return [cut_at_stop(_answer(row, plan.after), plan.stops) for row in written[:, width:].cpu().numpy()]


def _answer(symbols: np.ndarray, after: bytes | int | None) -> bytes:
    answer = None if after is None else answer_of(symbols, after)
    return decode_bytes(symbols) if answer is None else answer
