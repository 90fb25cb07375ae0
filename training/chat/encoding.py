"""A conversation in symbols, and which of them the assistant wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from proxybyte.errors import ProxyByteError
from proxybyte.symbols import IGNORE_INDEX, Special

ASSISTANT = "assistant"
Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class EncodedChat:
    """One conversation.

    Attributes:
        input_ids: symbols, int64, shape ``(symbols,)``.
        labels: as ``input_ids`` where the assistant wrote them or ended its turn, -100 elsewhere.
    """

    input_ids: np.ndarray
    labels: np.ndarray


def encode_conversation(tokenizer: PreTrainedTokenizerFast, messages: Messages) -> EncodedChat:
    """Encode ``messages`` by the tokenizer's template.

    What the assistant wrote is what a message adds to the prompt for it: this needs no ``{% generation %}`` in the
    template, so that one carried over from any base will do. A turn's targets end with its ``<|eot_id|>``.

    Raises:
        ProxyByteError: if there is no message of the assistant, one comes first, there is nothing to learn in them, or
            the template writes the past anew when a message is added.
    """
    roles = [message.get("role") for message in messages]
    if ASSISTANT not in roles or roles[0] == ASSISTANT:
        raise ProxyByteError("a conversation needs an answer of the assistant after another's message")
    whole = _render(tokenizer, messages, prompt=False)
    labels = np.full(len(whole), IGNORE_INDEX, dtype=np.int64)
    for place, role in enumerate(roles):
        if role != ASSISTANT:
            continue
        before = _render(tokenizer, messages[:place], prompt=True)
        after = _render(tokenizer, messages[: place + 1], prompt=False)
        if not (_begins(after, before) and _begins(whole, after)):
            raise ProxyByteError("the chat template writes earlier messages anew when one is added: use another")
        answer = after[len(before) :]
        ends = np.flatnonzero(answer == Special.END_OF_TURN)
        size = int(ends[-1]) + 1 if len(ends) else len(answer)
        labels[len(before) : len(before) + size] = answer[:size]
    if (labels[1:] == IGNORE_INDEX).all():
        raise ProxyByteError("the assistant's messages hold nothing to learn: their content is empty")
    return EncodedChat(whole, labels)


def _render(tokenizer: PreTrainedTokenizerFast, messages: Messages, *, prompt: bool) -> np.ndarray:
    try:
        ids = tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=prompt, return_dict=False
        )
    except (TemplateError, KeyError, TypeError) as error:
        raise ProxyByteError(f"the chat template refuses the conversation: {error}") from error
    return np.asarray(ids, dtype=np.int64)


def _begins(whole: np.ndarray, part: np.ndarray) -> bool:
    return len(part) <= len(whole) and bool((whole[: len(part)] == part).all())
