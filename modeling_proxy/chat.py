"""Conversations in symbols: the layout, as a function and as a template for ``apply_chat_template``.

A conversation is ``<raw>``, then for each message ``<|start_header_id|>`` role ``<|end_header_id|>`` two newlines,
the content, ``<|eot_id|>``; a prompt for the next answer ends after the assistant's header and its newlines. What
people wrote is always bytes, also where it spells a control token.
"""

from collections.abc import Mapping, Sequence
from string import Template

import numpy as np

from .byte_codec import encode_bytes
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
    """
    parts: list[Sequence[int] | np.ndarray] = [DocumentOpening(opening).symbols()]
    for message in messages:
        parts += [_header(message["role"]), encode_bytes(_as_bytes(message["content"])), [Special.END_OF_TURN]]
    if add_generation_prompt:
        parts.append(_header("assistant"))
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def _header(role: str | bytes) -> np.ndarray:
    name, gap = encode_bytes(_as_bytes(role)), encode_bytes(b"\n\n")
    return np.concatenate([[Special.HEADER_START], name, [Special.HEADER_END], gap])


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


_TEMPLATE = Template(
    """
{%- macro written(value) -%}
  {%- set ns = namespace(text='') -%}
  {%- if value is string -%}{%- set ns.text = value -%}
  {%- else -%}{%- for part in value -%}{%- set ns.text = ns.text ~ part['text'] -%}{%- endfor -%}{%- endif -%}
  {%- set ns.text = ns.text | replace('<\\ufdd0', '<\\ufdd0\\ufdd0') -%}
  {%- for rest in [$rests] -%}
    {%- set ns.text = ns.text | replace('<' ~ rest, '<\\ufdd0' ~ rest) -%}
  {%- endfor -%}
  {{- ns.text -}}
{%- endmacro -%}
{{- '$RAW_OPEN' -}}
{%- for message in messages -%}
  {{- '$HEADER_START' ~ written(message['role']) ~ '$HEADER_END\\n\\n' -}}
  {%- if message['role'] == 'assistant' -%}
    {%- generation -%}{{- written(message['content']) ~ '$END_OF_TURN' -}}{%- endgeneration -%}
  {%- else -%}
    {{- written(message['content']) ~ '$END_OF_TURN' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '${HEADER_START}assistant$HEADER_END\\n\\n' -}}{%- endif -%}
"""
)

CHAT_TEMPLATE = _TEMPLATE.substitute(
    {symbol.name: special_spelling(symbol) for symbol in Special},
    rests=", ".join(f"'{special_spelling(symbol)[1:]}'" for symbol in range(NUM_SPECIALS)),
)
"""Jinja source of the layout under ``<raw>`` for the chat tokenizer (``build_tokenizer(chat=True)``).

``written`` puts the escape behind the ``<`` of each spelled control token, and behind a ``<`` that an escape follows
already, so that taking out one escape behind every ``<`` gives back what was written. A message's parts are joined
first, as two halves of a control token may lie in two parts. Text without control tokens renders unchanged.
"""


def chat_template(opening: str = DocumentOpening.RAW) -> str:
    """:data:`CHAT_TEMPLATE` for a model whose documents open with ``opening``."""
    return CHAT_TEMPLATE.replace(f"'{DocumentOpening.RAW}' -}}}}", f"'{DocumentOpening(opening)}' -}}}}", 1)
