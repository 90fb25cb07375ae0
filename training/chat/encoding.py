"""A conversation in symbols, and which of them the assistant wrote."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from proxybyte.errors import ProxyByteError
from proxybyte.symbols import COMPRESSED_OFFSET, IGNORE_INDEX, Special

ASSISTANT = "assistant"
Message = Mapping[str, Any]
Messages = Sequence[Message]
TEMPLATE_KEYS = ("tools", "documents")
"""Beside the messages, what a row may give its template under the same name."""
_ENDS = (Special.END_OF_TURN, Special.EOS)
"""What a template may end an assistant's turn with; where it writes several, the last one counts."""


@dataclass(frozen=True)
class EncodedChat:
    """One conversation.

    Attributes:
        input_ids: symbols, int64, shape ``(symbols,)``.
        labels: as ``input_ids`` where the assistant wrote them or ended its turn, -100 elsewhere.
        unwritten: how often a key of a message changed nothing, for keys that only label what others wrote
            (``tool_call_id``, ``name``); anything else that changes nothing is refused.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    unwritten: Counter[str] = field(default_factory=Counter)


def encode_row(tokenizer: PreTrainedTokenizerFast, row: Mapping[str, Any]) -> EncodedChat:
    """Encode a row of a data set: its ``messages``, under its own ``tools`` and ``documents``.

    Raises:
        ProxyByteError: as :func:`encode_conversation`, or if ``tools`` or ``documents`` is no list.
        KeyError, TypeError: if there are no messages.
    """
    messages = row["messages"]
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise TypeError("messages")
    given = {key: _list_of(key, row[key]) for key in TEMPLATE_KEYS if row.get(key)}
    return encode_conversation(tokenizer, messages, given)


def encode_conversation(
    tokenizer: PreTrainedTokenizerFast, messages: Messages, given: Mapping[str, Any] | None = None
) -> EncodedChat:
    """Encode ``messages`` by the tokenizer's template.

    What the assistant wrote is what a message adds to the prompt for it: this needs no ``{% generation %}`` in the
    template, so that one carried over from any base will do. A turn's targets end with its ``<|eot_id|>`` or
    ``<eos>``.

    Args:
        tokenizer: the chat kind.
        messages: with ``role``, ``content`` and whatever the template knows; no content is an empty one.
        given: more of the template's variables, such as ``tools``.

    Raises:
        ProxyByteError: if there is no message of the assistant, one comes first or says nothing, there is nothing to
            learn in them, or the template writes the past anew when a message is added, or leaves out a part of one.
    """
    roles = [message.get("role") for message in messages]
    if ASSISTANT not in roles or roles[0] == ASSISTANT:
        raise ProxyByteError("a conversation needs an answer of the assistant after another's message")
    template = _Template(tokenizer, given or {})
    messages = [_without_gaps(message) for message in messages]
    unwritten = _unwritten(template, messages)
    whole = template.symbols(messages)
    if (whole >= COMPRESSED_OFFSET).any():
        raise ProxyByteError(
            f"the tokenizer has a token of its own for {tokenizer.convert_ids_to_tokens(int(whole.max()))!r}, whose "
            "number is a compressed symbol's: use an unused special such as '<extra_id_63>'"
        )
    labels = np.full(len(whole), IGNORE_INDEX, dtype=np.int64)
    for place, role in enumerate(roles):
        if role != ASSISTANT:
            continue
        before = template.symbols(messages[:place], prompt=True)
        after = template.symbols(messages[: place + 1])
        if not (_begins(after, before) and _begins(whole, after)):
            raise ProxyByteError("the chat template writes earlier messages anew when one is added: use another")
        answer = after[len(before) :]
        ends = np.flatnonzero(np.isin(answer, _ENDS))
        size = int(ends[-1]) + 1 if len(ends) else len(answer)
        labels[len(before) : len(before) + size] = answer[:size]
    if (labels[1:] == IGNORE_INDEX).all():
        raise ProxyByteError("the assistant's messages hold nothing to learn: their content is empty")
    return EncodedChat(whole, labels, unwritten)


@dataclass(frozen=True)
class _Template:
    """The tokenizer's template with what is the same for all messages."""

    tokenizer: PreTrainedTokenizerFast
    given: Mapping[str, Any]

    def symbols(self, messages: Messages, *, prompt: bool = False) -> np.ndarray:
        return np.asarray(self._render(messages, self.given, prompt=prompt, return_dict=False), dtype=np.int64)

    def text(self, messages: Messages, given: Mapping[str, Any]) -> str:
        return self._render(messages, given, prompt=False, tokenize=False)

    def writes_the_same(self, text: str, messages: Messages, given: Mapping[str, Any]) -> bool:
        """Whether ``text`` is what is rendered; not where the template refuses it."""
        try:
            return self.text(messages, given) == text
        except ProxyByteError:
            return False

    def _render(self, messages: Messages, given: Mapping[str, Any], *, prompt: bool, **how: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=prompt, **given, **how
            )
        except (TemplateError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProxyByteError(f"the chat template refuses the conversation: {error}") from error


def _without_gaps(message: Message) -> Message:
    """``message`` without absent values, as tables fill rows up with; a content of ``None`` is an empty one.

    Raises:
        ProxyByteError: if the assistant says nothing at all.
    """
    kept = {key: value for key, value in message.items() if value is not None}
    if kept.get("role") == ASSISTANT and "content" not in kept and not any(kept[key] for key in kept if key != "role"):
        raise ProxyByteError("a message of the assistant has no content: take it out")
    return {"content": "", **kept}


def _unwritten(template: _Template, messages: Messages) -> Counter[str]:
    """Count the labels that the template writes nothing of.

    Each part of each message is taken out in turn; where the text does not change the template never wrote it.

    Raises:
        ProxyByteError: at the first part that is no label.
    """
    labels: Counter[str] = Counter()
    whole = template.text(messages, template.given)
    for key in template.given:
        less_given = {name: value for name, value in template.given.items() if name != key}
        if template.writes_the_same(whole, messages, less_given):
            raise ProxyByteError(f"the chat template writes nothing of the row's {key!r}: use another or take it out")
    for place, message in enumerate(messages):
        for name, label, less in _parts(message):
            others = [*messages[:place], less, *messages[place + 1 :]]
            if not template.writes_the_same(whole, others, template.given):
                continue
            if not label:
                raise ProxyByteError(
                    f"message {place + 1} ({message.get('role')}): the chat template writes nothing of its {name}: "
                    "use another template or take it out"
                )
            labels[name] += 1
    return labels


def _parts(message: Message) -> Iterator[tuple[str, bool, Message]]:
    """Each part of a message that could get lost: its name, whether it is a mere label, the message without it."""
    for key, value in message.items():
        if key == "role" or not value or (isinstance(value, str) and not value.strip()):
            continue
        less = {name: other for name, other in message.items() if name != key}
        if key == "content":
            less["content"] = ""
        label = key != "content" and isinstance(value, str | int | float) and message.get("role") != ASSISTANT
        yield repr(key), label, less
        for place, item in enumerate(value if isinstance(value, list) and len(value) > 1 else ()):
            if item != {"type": "text", "text": ""}:
                yield f"{key!r}, item {place + 1}", False, {**message, key: [*value[:place], *value[place + 1 :]]}


def _list_of(key: str, value: Any) -> list[Any]:
    """``value`` as a list; tables of mixed rows hold one as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ProxyByteError(f"{key!r} is no list: {error}") from error
    if not isinstance(value, list):
        raise ProxyByteError(f"{key!r} is a {type(value).__name__}: give a list")
    return value


def _begins(whole: np.ndarray, part: np.ndarray) -> bool:
    return len(part) <= len(whole) and bool((whole[: len(part)] == part).all())
