"""The base's chat template carried over to the byte tokenizer.

A control symbol comes from the template's own text alone. In the template each control token of the base becomes a
*mark*, U+FDD1 and a letter, which nobody else can write, because the strings that it is given are freed of U+FDD1. What
it renders is cut at the marks, and all that lies between them is escaped as text, also where two strings, or a string
and the template's own text, spell a control token together.
"""

import re
from pathlib import Path

from jinja2 import TemplateSyntaxError, meta
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

from proxybyte import ProxyByteError, build_tokenizer, save_tokenizer
from proxybyte.chat import ESCAPE, ESCAPING
from proxybyte.symbols import Special, special_spelling

from .specials import TURN_ENDS, TURN_STARTS, describe, map_specials

_MARK = "\ufdd1"
_LAYOUT = (Special.END_OF_TURN, Special.EOS, Special.HEADER_START, Special.HEADER_END, Special.BOS)
"""Specials that may stand in a template; where two share a token of the base, the first one gets it."""
_LETTERS = {special: chr(ord("A") + place) for place, special in enumerate(_LAYOUT)}
_ON, _OFF = "Y", "Z"
"""Letters for the beginning and the end of what the assistant wrote, where the base's template says so."""
_TOKEN_VARIABLES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
"""What Transformers gives each template beside the conversation: tokens, not text."""


def _fill(source: str) -> str:
    return source.replace("ESC", ESCAPE).replace("MARK", _MARK)


# A macro returns a string alone: structures come back through a namespace.
_UNMARKED = _fill(
    """
{%- macro unmarked(value, out) -%}
  {%- if value is string -%}
    {%- set out.value = value | replace('ESC', 'ESCb') | replace('MARK', 'ESCa') -%}
  {%- elif value is mapping -%}
    {%- set ns = namespace(all=[]) -%}
    {%- for key, inner in value.items() -%}
      {%- set k = namespace(value=key) -%}
      {%- set v = namespace(value=inner) -%}
      {{- unmarked(key, k) ~ unmarked(inner, v) -}}
      {%- set ns.all = ns.all + [[k.value, v.value]] -%}
    {%- endfor -%}
    {%- set out.value = dict(ns.all) -%}
  {%- elif value is iterable -%}
    {%- set ns = namespace(all=[]) -%}
    {%- for inner in value -%}
      {%- set v = namespace(value=inner) -%}
      {{- unmarked(inner, v) -}}
      {%- set ns.all = ns.all + [v.value] -%}
    {%- endfor -%}
    {%- set out.value = ns.all -%}
  {%- endif -%}
{%- endmacro -%}"""
)
# Only where it is needed: other programs' Jinja has no dict().
_UNMARK = _fill(
    """
{%- if NAME is defined and ('MARK' in (NAME | tojson) or 'ESC' in (NAME | tojson)) -%}
  {%- set our = namespace(value=NAME) -%}{{- unmarked(NAME, our) -}}{%- set NAME = our.value -%}
{%- endif -%}"""
)
# The empty string keeps lstrip_blocks from what the template's last line ends with.
_CUT = _fill(
    """{{ '' }}{% endset -%}
{%- set rendered = rendered[2:] if rendered[:2] == 'MARKBOS' else rendered -%}
{%- set state = namespace(generated=false) -%}
{{- 'RAW' -}}
{%- for piece in rendered.split('MARK') -%}
  {%- set letter = '' if loop.first else piece[:1] -%}
  {%- set text = piece if loop.first else piece[1:] -%}
  {%- set text = written(text | replace('ESCa', 'MARK') | replace('ESCb', 'ESC')) -%}
  {%- set text = (spelled[letter] if letter in spelled else '') ~ text -%}
  SHOW
{%- endfor -%}""".replace("BOS", _LETTERS[Special.BOS]).replace("RAW", special_spelling(Special.RAW_OPEN))
)
_SHOW = "{{- text -}}"
_SHOW_GENERATED = f"""\
{{%- if letter in ['{_ON}', '{_OFF}'] -%}}{{%- set state.generated = letter == '{_ON}' -%}}{{%- endif -%}}
  {{%- if state.generated -%}}{{%- generation -%}}{{{{- text -}}}}{{%- endgeneration -%}}
  {{%- else -%}}{{{{- text -}}}}{{%- endif -%}}"""


def carry_over(template: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """``template`` of the base with our control tokens in the place of its own, and everything else as text.

    The base's beginning of a text gives way to ``<raw>``; control tokens for which the layout has none stay as they
    are spelled, as text.

    Raises:
        ProxyByteError: if Transformers cannot read the template.
    """
    try:
        environment = _compile_jinja_template(template).environment
        given = meta.find_undeclared_variables(environment.parse(template))
    except TemplateSyntaxError as error:
        raise ProxyByteError(
            f"the base's chat template cannot be read: line {error.lineno}: {error.message}"
        ) from error
    marks = {spelling: _MARK + _LETTERS[special] for spelling, special in _their_tokens(tokenizer).items()}
    prelude = [ESCAPING, _UNMARKED]
    for name in sorted(given):
        if name in _TOKEN_VARIABLES:
            token = str(getattr(tokenizer, name, None) or "")
            prelude.append(f"\n{{%- set {name} = {_literal(marks.get(token, token))} -%}}")
        else:
            prelude.append(_UNMARK.replace("NAME", name))
    spelled = ", ".join(f"'{letter}': '{special_spelling(special)}'" for special, letter in _LETTERS.items())
    prelude.append(f"\n{{%- set spelled = {{{spelled}}} -%}}")
    body = template.removesuffix("\n")
    for theirs in sorted(marks, key=len, reverse=True):
        body = body.replace(theirs, marks[theirs])
    body, tags = re.subn(r"\{%(-?)\s*(end)?generation\s*(-?)%\}", _generation_mark, body)
    # trim_blocks takes the line break behind the tag, so that the template begins as it did.
    cut = _CUT.replace("SHOW", _SHOW_GENERATED if tags else _SHOW)
    return "".join([*prelude, "\n{%- set rendered %}\n", body, cut])


def save_chat_tokenizer(theirs: PreTrainedTokenizerFast, folder: Path, limit: int | None) -> None:
    """Write the chat kind of byte tokenizer with all of the base's templates; nothing if the base has none."""
    template = theirs.chat_template
    if template is None:
        return
    tokenizer = build_tokenizer(chat=True, model_max_length=limit)
    if isinstance(template, dict):
        # Transformers takes the one called "tool_use" where tools are given.
        tokenizer.chat_template = {name: carry_over(one, theirs) for name, one in template.items()}
    else:
        tokenizer.chat_template = carry_over(template, theirs)
    save_tokenizer(tokenizer, folder)


def _their_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Special]:
    """The base's control tokens that have a place in the layout, each end of a turn among them."""
    table = describe(map_specials(tokenizer), tokenizer)
    found: dict[str, Special] = {}
    for special in _LAYOUT:
        spelling = table.get(special_spelling(special))
        # A base without a token that begins a turn lends the row its beginning of a text, not its template's.
        lent = special is Special.HEADER_START and spelling not in TURN_STARTS
        if spelling and _is_control(spelling) and not lent:
            found.setdefault(spelling, special)
    vocabulary = tokenizer.get_vocab()
    for spelling in TURN_ENDS:
        if spelling in vocabulary and _is_control(spelling):
            found.setdefault(spelling, Special.END_OF_TURN)
    return found


def _is_control(spelling: str) -> bool:
    """Whether a token is one that a template writes, rather than a line break or a word in brackets."""
    return spelling.startswith("<") and spelling != "<0x0A>"


def _literal(text: str) -> str:
    """``text`` as a string of Jinja."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _generation_mark(tag: re.Match[str]) -> str:
    """A mark with the white-space control of a ``generation`` tag, which cannot stand inside a captured block."""
    before, end, after = tag.groups()
    return f"{{%{before} if true %}}{_MARK}{_OFF if end else _ON}{{% endif {after}%}}"
