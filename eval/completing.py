"""What a byte model writes after prompts, as bytes, cut at the very byte that completes a stop string."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from proxybyte import numbers
from proxybyte.byte_codec import decode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.eval.stopping import StopAtBytes, answer_of, cut_at_stop
from proxybyte.symbols import Special


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
