"""Conversations for our lm-eval class: in the template that lies in the model's folder, as symbols."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from proxybyte.artefacts import CHAT_FOLDER
from proxybyte.byte_codec import encode_bytes
from proxybyte.chat import CHAT_TEMPLATE, encode_chat
from proxybyte.errors import ProxyByteError
from proxybyte.model_loading import NO_CODE
from proxybyte.symbols import BYTE_OFFSET, Special

_OPENINGS = (int(Special.BOS), int(Special.RAW_OPEN))
Messages = Sequence[dict[str, str]]


class ChatPrompt(str):
    """A rendered conversation for lm-eval's logs, with the symbols that the model reads (its opening left out)."""

    symbols: np.ndarray

    @classmethod
    def of(cls, text: str, symbols: np.ndarray) -> Self:
        """``text`` with ``symbols``, whose opening is taken off: every window gets the model's own."""
        opening = next(
            (place for place, symbol in enumerate(symbols.tolist()) if symbol not in _OPENINGS), len(symbols)
        )
        prompt = cls(text)
        prompt.symbols = symbols[opening:]
        return prompt


class ChatLayout:
    """How a model reads conversations.

    Args:
        tokenizer: the chat kind of byte tokenizer that it carries; ``None`` for the layout of :func:`encode_chat`.
        options: what the template is told besides (``enable_thinking``, ...).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, options: dict[str, Any]) -> None:
        self._tokenizer, self._options = tokenizer, options
        self._name: str | None = None

    def source(self, name: bool | str) -> str:
        """Jinja source of the template that is used from now on; ``name`` chooses among several.

        Raises:
            ProxyByteError: if there is none of that name.
        """
        self._name = name if isinstance(name, str) else None
        templates = None if self._tokenizer is None else self._tokenizer.chat_template
        if self._name is not None and not (isinstance(templates, dict) and self._name in templates):
            known = (
                f"those named {', '.join(templates)}" if isinstance(templates, dict) else "one alone, without a name"
            )
            raise ProxyByteError(f"the model has no chat template {self._name!r} (it has {known})")
        if isinstance(templates, dict):
            if "default" not in templates and self._name is None:
                raise ProxyByteError(f"name a chat template with --apply_chat_template: {', '.join(templates)}")
            return templates[self._name or "default"]
        return CHAT_TEMPLATE if templates is None else templates

    def prompt(self, messages: Messages, *, to_be_answered: bool) -> ChatPrompt:
        """``messages``, to be answered, or with the last one left open, to be gone on with.

        Raises:
            ProxyByteError: if the template refuses them, or has no place for an option that it was given.
        """
        template = self.source(self._name or True)
        for key in self._options:
            if key not in template and self._options[key] is not False:
                raise ProxyByteError(
                    f"{key}={self._options[key]} changes nothing: the model's chat template has no {key}"
                )
        try:
            return self._prompt(list(messages), template, to_be_answered)
        except TemplateError as error:
            without = [message for message in messages if message["role"] != "system"]
            if len(without) == len(messages):
                raise ProxyByteError(f"the chat template refuses the conversation: {error}") from error
        logging.getLogger(__name__).warning("the chat template takes no system message: it is left out")
        try:
            return self._prompt(without, template, to_be_answered)
        except TemplateError as error:
            raise ProxyByteError(f"the chat template refuses the conversation: {error}") from error

    def _prompt(self, messages: list[dict[str, str]], template: str, to_be_answered: bool) -> ChatPrompt:
        if self._tokenizer is None:
            text = "".join(f"[{message['role']}] {message['content']}\n" for message in messages)
            symbols = encode_chat(messages, add_generation_prompt=to_be_answered)
            return ChatPrompt.of(text, symbols if to_be_answered else symbols[:-1])
        arguments = {**self._options, "chat_template": template, "add_generation_prompt": to_be_answered}
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
        found = self._tokenizer.apply_chat_template(messages, return_dict=False, **arguments)
        symbols = np.asarray(found, dtype=np.int64)
        return ChatPrompt.of(str(rendered), symbols if to_be_answered else _left_open(symbols, messages[-1]["content"]))


def _left_open(symbols: np.ndarray, content: str) -> np.ndarray:
    """``symbols`` up to the end of ``content``, their last message."""
    for written in (content, content.strip()):  # many templates strip what they are given
        wanted = encode_bytes(written.encode("utf-8", "surrogatepass"), np.int64)
        if not 0 < len(wanted) <= len(symbols):
            continue
        windows = np.lib.stride_tricks.sliding_window_view(symbols, len(wanted))
        places = np.flatnonzero(np.all(windows == wanted, axis=1))
        if len(places):
            return symbols[: int(places[-1]) + len(wanted)]
    raise ProxyByteError("the chat template changes the last message, so it cannot be gone on with")


def carried_chat_tokenizer(pretrained: Any, given: Any, **where: Any) -> PreTrainedTokenizerBase | None:
    """The byte tokenizer whose chat template the model was trained with, ``None`` where it has none.

    Args:
        pretrained: model folder or name on the Hub; anything else carries none.
        given: the tokenizer, or its folder, that the caller wants instead.
        where: ``revision``, ``subfolder``, ``trust_remote_code``.

    Raises:
        ProxyByteError: if ``given`` does not load, has no chat template, or is no byte tokenizer.
    """
    if given is not None:
        tokenizer = _load(given, **where) if isinstance(given, str | Path) else given
        if tokenizer is None:
            raise ProxyByteError(f"tokenizer={given} does not load")
        if not _reads_bytes(tokenizer):
            raise ProxyByteError(f"tokenizer={given} is no byte tokenizer: the model reads bytes")
        return tokenizer if tokenizer.chat_template else None
    if not isinstance(pretrained, str):
        return None
    subfolder = where.pop("subfolder", "") or ""
    for place in (f"{subfolder}/{CHAT_FOLDER}".lstrip("/"), subfolder):
        tokenizer = _load(pretrained, subfolder=place, **where)
        if tokenizer is not None and tokenizer.chat_template and _reads_bytes(tokenizer):
            return tokenizer
    return None


def _load(place: str | Path, **where: Any) -> PreTrainedTokenizerBase | None:
    try:
        return AutoTokenizer.from_pretrained(place, **NO_CODE | where)
    except (OSError, ValueError, KeyError, TypeError):  # none there: models of bytes need none
        return None


def _reads_bytes(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer("aé", add_special_tokens=False)["input_ids"] == [BYTE_OFFSET + byte for byte in "aé".encode()]
