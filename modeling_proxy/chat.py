"""Conversations in symbols: the layout, as a function and as a template for ``apply_chat_template``.

A conversation is ``<raw>``, then for each message ``<|start_header_id|>`` role ``<|end_header_id|>`` two newlines,
the content, ``<|eot_id|>``; a prompt for the next answer ends after the assistant's header and its newlines. What
people wrote is always bytes, also where it spells a control token.
"""

from collections.abc import Mapping, Sequence
from string import Template

import numpy as np

from .byte_codec import encode_bytes
from .errors import ProxyByteError
from .symbols import NUM_SPECIALS, DocumentOpening, Special, special_spelling

ESCAPE = "\ufdd0"
"""Put behind the ``<`` of a control token that someone wrote (a noncharacter: Unicode reserves it for such use)."""


def encode_chat(
    messages: Sequence[Mapping[str, str | bytes]],
    *,
    add_generation_prompt: bool = False,
    opening: str = DocumentOpening.RAW,
) -> np.ndarray:
    """Symbols of a conversation, exact for any content.

    Args:
        messages: each with ``role`` and ``content``, as text or as bytes.
        add_generation_prompt: end with the header of an assistant's message, for the model to answer.
        opening: how a document opens, as the model's ``config.document_opening`` says.

    Returns:
        int32 array of shape ``(symbols,)``, the same as the chat tokenizer's ``apply_chat_template``.

    Raises:
        ProxyByteError: if a message holds more than its role and content, for which the layout has no place.
    """
    parts: list[Sequence[int] | np.ndarray] = [DocumentOpening(opening).symbols()]
    for message in messages:
        if extra := sorted(key for key, value in message.items() if value and key not in ("role", "content")):
            raise ProxyByteError(f"a message holds {extra[0]!r}: this chat layout has a role and a content alone")
        parts += [_header(message["role"]), encode_bytes(_as_bytes(message["content"])), [Special.END_OF_TURN]]
    if add_generation_prompt:
        parts.append(_header("assistant"))
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def _header(role: str | bytes) -> np.ndarray:
    name, gap = encode_bytes(_as_bytes(role)), encode_bytes(b"\n\n")
    return np.concatenate([[Special.HEADER_START], name, [Special.HEADER_END], gap])


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


_ESCAPING = """
{%- macro written(text) -%}
  {%- set ns = namespace(text=text | replace('<\ufdd0', '<\ufdd0\ufdd0')) -%}
  {%- for rest in [RESTS] -%}
    {%- set ns.text = ns.text | replace('<' ~ rest, '<\ufdd0' ~ rest) -%}
  {%- endfor -%}
  {{- ns.text -}}
{%- endmacro -%}
"""

ESCAPING = (
    _ESCAPING.strip()
    .replace("ESC", ESCAPE)
    .replace("RESTS", ", ".join(f"'{special_spelling(symbol)[1:]}'" for symbol in range(NUM_SPECIALS)))
)
"""Jinja macro ``written(text)``: ``text`` with the escape behind the ``<`` of each control token that it spells.

It also goes behind a ``<`` that an escape follows already, so that taking out one escape behind every ``<`` gives back
what was written. Text without control tokens stays as it is.
"""

_TEMPLATE = Template(
    """
{%- if tools -%}{{- raise_exception('this chat layout has no place for tools') -}}{%- endif -%}
{%- macro content_of(message) -%}
  {%- for key in ['tool_calls', 'reasoning_content', 'reasoning', 'thinking'] -%}
    {%- if message[key] -%}{{- raise_exception('this chat layout has no place for ' ~ key) -}}{%- endif -%}
  {%- endfor -%}
  {%- if message['content'] is string -%}{{- written(message['content']) -}}
  {%- else -%}
    {%- set ns = namespace(text='') -%}
    {%- for part in message['content'] -%}
      {%- if part['text'] is not string -%}{{- raise_exception('this chat layout has text alone') -}}{%- endif -%}
      {%- set ns.text = ns.text ~ part['text'] -%}
    {%- endfor -%}
    {{- written(ns.text) -}}
  {%- endif -%}
{%- endmacro -%}
{{- '$RAW_OPEN' -}}
{%- for message in messages -%}
  {{- '$HEADER_START' ~ written(message['role']) ~ '$HEADER_END\\n\\n' -}}
  {%- if message['role'] == 'assistant' -%}
    {%- generation -%}{{- content_of(message) ~ '$END_OF_TURN' -}}{%- endgeneration -%}
  {%- else -%}
    {{- content_of(message) ~ '$END_OF_TURN' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '${HEADER_START}assistant$HEADER_END\\n\\n' -}}{%- endif -%}
"""
)

CHAT_TEMPLATE = ESCAPING + _TEMPLATE.substitute({symbol.name: special_spelling(symbol) for symbol in Special}).strip()
"""Jinja source of the layout under ``<raw>`` for the chat tokenizer (``build_tokenizer(chat=True)``).

A message's parts are joined before they are escaped, as two halves of a control token may lie in two parts. What the
layout has no place for is refused.
"""


def chat_template(opening: str = DocumentOpening.RAW) -> str:
    """:data:`CHAT_TEMPLATE` for a model whose documents open with ``opening``."""
    return CHAT_TEMPLATE.replace(f"'{DocumentOpening.RAW}' -}}}}", f"'{DocumentOpening(opening)}' -}}}}", 1)
