"""The base's chat template carried over to the byte tokenizer."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from proxybyte import build_tokenizer, save_tokenizer
from proxybyte.chat import ESCAPE
from proxybyte.symbols import NUM_SPECIALS, Special, special_spelling

from .specials import describe, map_specials

_LAYOUT = (Special.HEADER_START, Special.HEADER_END, Special.END_OF_TURN, Special.EOS, Special.BOS)
"""Specials that may stand in a template; where two share a token of the base, the first one gets it."""
_PRELUDE = """\
{%- set our = namespace(messages=[]) -%}
{%- macro written(value) -%}
  {%- set ns = namespace(text='') -%}
  {%- if value is string -%}{%- set ns.text = value -%}
  {%- else -%}{%- for part in value -%}{%- set ns.text = ns.text ~ part['text'] -%}{%- endfor -%}{%- endif -%}
  {%- set ns.text = ns.text | replace('<ESC', '<ESCESC') -%}
  {%- for rest in [RESTS] -%}{%- set ns.text = ns.text | replace('<' ~ rest, '<ESC' ~ rest) -%}{%- endfor -%}
  {{- ns.text -}}
{%- endmacro -%}
{%- for message in messages -%}
  {%- set our.messages = our.messages + [dict(message, content=written(message['content']))] -%}
{%- endfor -%}
{%- set messages = our.messages -%}
""".replace("ESC", ESCAPE)
"""Puts the escape behind the ``<`` of each control token that someone wrote, before the base's template sees it."""


def carry_over(template: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """``template`` of the base with our spellings in the place of its control tokens.

    Control tokens for which the layout has none stay as they are spelled, as text.
    """
    ours = {spelling: special_spelling(special) for special, spelling in _their_spellings(tokenizer).items()}
    for theirs in sorted(ours, key=len, reverse=True):
        template = template.replace(theirs, ours[theirs])
    rests = ", ".join(f"'{special_spelling(symbol)[1:]}'" for symbol in range(NUM_SPECIALS))
    return f"{_PRELUDE.replace('RESTS', rests)}{{{{- '{special_spelling(Special.RAW_OPEN)}' -}}}}\n{template}"


def save_chat_tokenizer(theirs: PreTrainedTokenizerFast, folder: Path, limit: int | None) -> None:
    """Write the chat kind of byte tokenizer with the base's template; nothing if the base has none."""
    template = theirs.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template is None:
        return
    tokenizer = build_tokenizer(chat=True, model_max_length=limit)
    tokenizer.chat_template = carry_over(template, theirs)
    save_tokenizer(tokenizer, folder)


def _their_spellings(tokenizer: PreTrainedTokenizerFast) -> dict[Special, str]:
    table = describe(map_specials(tokenizer), tokenizer)
    found: dict[Special, str] = {}
    for special in _LAYOUT:
        spelling = table.get(special_spelling(special))
        if spelling and spelling.startswith("<") and spelling not in found.values() and spelling != "<0x0A>":
            found[special] = spelling
    return found
