"""A model that completes prompts, whatever its symbols: bytes, or a tokenizer's tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import StoppingCriteria

from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import WrongOption
from proxybyte.eval.completing import ByteGeneration, check_temperature, complete_bytes
from proxybyte.eval.loading import ModelKind, model_kind
from proxybyte.eval.scoring import bare, position_limit
from proxybyte.model_loading import load_tokenizer
from proxybyte.symbols import document_opening

DEFAULT_NEW = {ModelKind.BYTES: 1536, ModelKind.TOKENS: 512}
"""Longest completion in symbols; the longest canonical solution of HumanEval has 864 bytes."""


@dataclass(frozen=True)
class Decoding:
    """How completions are drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: of sampling.
        max_new: most symbols (bytes or tokens) in a completion; the kind's default, or half the model's positions if
            that is less, where ``None``.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise WrongOption(f"temperature must be at least 0, not {self.temperature}", "temperature")
        if self.temperature:
            check_temperature(self.temperature, "temperature")
        if not 0 < self.top_p <= 1:
            raise WrongOption(f"top_p must be above 0 and at most 1, not {self.top_p}", "top_p")
        if self.max_new is not None and self.max_new < 1:
            raise WrongOption(f"max_new must be at least 1, not {self.max_new}", "max_new")

    def options(self) -> dict[str, Any]:
        """For ``generate``; top-k is off, whatever the model's own defaults say."""
        if self.temperature == 0:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}


class Completer(Protocol):
    """Writes on from prompts.

    Attributes:
        kind: what the model reads.
        max_new: most symbols in a completion.
    """

    kind: ModelKind
    max_new: int

    def cuts(self, prompt: str) -> bool:
        """Whether ``prompt`` loses its beginning because it does not fit."""
        ...

    def complete(self, prompts: Sequence[str], stops: Sequence[str], seed: int) -> list[str]:
        """Completion of each prompt, up to the first of ``stops``; what is drawn depends on ``seed`` alone."""
        ...


def make_completer(model: Any, folder: Path, decoding: Decoding) -> Completer:
    """The completer for a loaded model.

    Raises:
        ProxyByteError: if completions of that length leave no room for a prompt, or a tokenizer does not load.
    """
    kind = model_kind(model)
    limit = position_limit(model)
    max_new = decoding.max_new or min(DEFAULT_NEW[kind], limit // 2)
    room = limit - max_new
    if room < 2 + (kind is ModelKind.BYTES):
        told = f"max_new {max_new} leaves no room for a prompt in the model's {limit} positions"
        raise WrongOption(told, "max_new")
    if kind is ModelKind.BYTES:
        return ByteCompleter(model, decoding, max_new, room)
    return TokenCompleter(model, load_tokenizer(folder), decoding, max_new, room)


class ByteCompleter:
    """A byte model: the prompt ends at its very byte, and nothing is healed or stripped."""

    kind = ModelKind.BYTES

    def __init__(self, model: Any, decoding: Decoding, max_new: int, room: int) -> None:
        self.max_new = max_new
        self._model, self._options = model, decoding.options()
        self._opening = np.array(document_opening(bare(model).config), dtype=np.int64)
        self._room = room - len(self._opening)

    def cuts(self, prompt: str) -> bool:
        """See :class:`Completer`."""
        return len(prompt.encode("utf-8", "surrogatepass")) > self._room

    def complete(self, prompts: Sequence[str], stops: Sequence[str], seed: int) -> list[str]:
        """See :class:`Completer`. Bytes that are no UTF-8 come out as U+FFFD."""
        symbols = [encode_bytes(prompt.encode("utf-8", "surrogatepass"), np.int64) for prompt in prompts]
        plan = ByteGeneration([stop.encode() for stop in stops], self.max_new, self._options)
        torch.manual_seed(seed)
        texts = complete_bytes(
            self._model, [np.concatenate([self._opening, prompt[-self._room :]]) for prompt in symbols], plan
        )
        return [text.decode("utf-8", "replace") for text in texts]


class TokenCompleter:
    """A tokenizer model, prompted with its tokenizer's own opening; the baseline."""

    kind = ModelKind.TOKENS

    def __init__(self, model: Any, tokenizer: Any, decoding: Decoding, max_new: int, room: int) -> None:
        self.max_new = max_new
        self._model, self._tokenizer = model, tokenizer
        self._options, self._room = decoding.options(), room
        ends = model.generation_config.eos_token_id
        self._ends = ends if ends is not None else tokenizer.eos_token_id
        pad = tokenizer.pad_token_id
        self._pad = pad if pad is not None else (self._ends[0] if isinstance(self._ends, list) else self._ends or 0)

    def cuts(self, prompt: str) -> bool:
        """See :class:`Completer`."""
        return len(self._tokenizer(prompt)["input_ids"]) > self._room

    def complete(self, prompts: Sequence[str], stops: Sequence[str], seed: int) -> list[str]:
        """See :class:`Completer`."""
        rows = [self._tokenizer(prompt)["input_ids"] for prompt in prompts]
        rows = [row[-self._room :] for row in rows]
        width = max(map(len, rows))
        input_ids = torch.full((len(rows), width), self._pad)
        mask = torch.zeros_like(input_ids)
        for number, row in enumerate(rows):
            input_ids[number, width - len(row) :] = torch.tensor(row)
            mask[number, width - len(row) :] = 1
        torch.manual_seed(seed)
        written = self._model.generate(
            input_ids=input_ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            max_new_tokens=self.max_new,
            stopping_criteria=[_StopAtText(self._tokenizer, stops, width)],
            eos_token_id=self._ends,
            pad_token_id=self._pad,
            **self._options,
        )
        return [
            cut_text(self._continuation(prompt, row.tolist()), stops)
            for prompt, row in zip(rows, written[:, width:].cpu(), strict=True)
        ]

    def _continuation(self, prompt: list[int], new: list[int]) -> str:
        """Text that ``new`` adds; read after the prompt, as some tokenizers drop a space at a text's beginning."""
        before, after = (
            self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for ids in (prompt, [*prompt, *new])
        )
        return after[len(before) :] if after.startswith(before) else after


class _StopAtText(StoppingCriteria):
    """Ends a row whose new text holds a stop string."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], prompt_length: int) -> None:
        self._tokenizer, self._stops, self._prompt_length = tokenizer, stops, prompt_length
        # A token spells at least a byte, so a stop string that is complete lies within this many of the last ones.
        self._tail = max((len(stop.encode()) for stop in stops), default=0) + 4

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        tails = input_ids[:, max(self._prompt_length, input_ids.shape[1] - self._tail) :].tolist()
        texts = [self._tokenizer.decode(tail, clean_up_tokenization_spaces=False) for tail in tails]
        found = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(found, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


def cut_text(text: str, stops: Sequence[str]) -> str:
    """``text`` up to the first of ``stops`` in it, or all of it."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
