"""Stop strings in bytes: generation ends at the very symbol that completes one."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import StoppingCriteria

from proxybyte.byte_codec import decode_bytes


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
