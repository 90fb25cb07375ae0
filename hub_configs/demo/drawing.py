"""What the demo shows, as HTML; and what a change to a text does to its views."""

import html
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

import numpy as np
from rapidfuzz.distance import Levenshtein

from proxybyte.byte_codec import decode_bytes
from proxybyte.symbols import NUM_SPECIALS
from proxybyte.training import TEXT_STYLE, bordered, coloured, plain, scale

from .model import CompressedText, DemoModel, Written


class Change(StrEnum):
    """What is done to a text; the values are what a person reads."""

    SWAP = "typo: two letters swapped"
    LOSS = "typo: a letter lost"
    DOUBLING = "typo: a letter doubled"
    TABS = "reformat: tabs for four spaces"
    SPACES = "reformat: spaces around operators left out"
    BLANK_LINES = "reformat: blank lines left out"
    WINDOWS = "reformat: lines end in CR LF"
    UPPER = "reformat: all letters upper case"


def changed(text: str, change: Change, seed: int = 0) -> str:
    """``text`` with ``change`` done to it; as it is where there is no place for it.

    Args:
        text: any.
        change: which.
        seed: picks the place of a typo.
    """
    if change in _TYPOS:
        places = [place for place in range(len(text) - 1) if _is_inside_a_word(text, place)]
        if not places:
            return text
        place = random.Random(seed).choice(places)
        return text[:place] + _TYPOS[change](text[place : place + 2]) + text[place + 2 :]
    return _REFORMATS[change](text)


def _is_inside_a_word(text: str, place: int) -> bool:
    """Whether two different letters stand at ``place``."""
    first, second = text[place], text[place + 1]
    return first.isalpha() and second.isalpha() and first != second


def _without_spaces_at_operators(text: str) -> str:
    for operator in ("==", "!=", "<=", ">=", "+=", "-=", "->", "=", "+", "-", "*", "/", "<", ">", "%"):
        text = text.replace(f" {operator} ", operator)
    return text


def _without_blank_lines(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.strip())


_TYPOS: dict[Change, Callable[[str], str]] = {
    Change.SWAP: lambda pair: pair[::-1],
    Change.LOSS: lambda pair: pair[1],
    Change.DOUBLING: lambda pair: pair[0] + pair,
}
"""Each takes the two letters at the place."""
_REFORMATS: dict[Change, Callable[[str], str]] = {
    Change.TABS: lambda text: text.replace("    ", "\t"),
    Change.SPACES: _without_spaces_at_operators,
    Change.BLANK_LINES: _without_blank_lines,
    Change.WINDOWS: lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
    Change.UPPER: str.upper,
}


@dataclass(frozen=True)
class Side:
    """One of two texts.

    Attributes:
        text: its bytes.
        bits: what each costs, shape ``(len(text),)``.
        marked: offsets of bytes that the other does not have.
    """

    text: bytes
    bits: np.ndarray
    marked: frozenset[int]


@dataclass(frozen=True)
class SymbolsChanged:
    """What a change does to the codes of one compressor.

    Attributes:
        name: of the compressor, or of the raw bytes.
        before: symbols of the original.
        after: symbols of the changed text.
        edits: symbols put in, taken out or replaced at least (Levenshtein distance).
    """

    name: str
    before: int
    after: int
    edits: int


@dataclass(frozen=True)
class Compared:
    """Two texts side by side."""

    before: Side
    after: Side
    symbols: tuple[SymbolsChanged, ...]


def compare(model: DemoModel, before: bytes, after: bytes) -> Compared:
    """Two texts under one model and its compressors.

    Raises:
        ProxyByteError: if one exceeds the model's context.
    """
    lost, new = _differing(before, after)
    pairs = zip(model.compressed(before), model.compressed(after), strict=True)
    symbols = [SymbolsChanged("raw bytes", len(before), len(after), Levenshtein.distance(before, after))]
    symbols += [_changed_symbols(*pair) for pair in pairs if pair[0].refusal is None and pair[1].refusal is None]
    return Compared(Side(before, model.bits(before), lost), Side(after, model.bits(after), new), tuple(symbols))


def _changed_symbols(before: CompressedText, after: CompressedText) -> SymbolsChanged:
    codes = before.codes.tolist(), after.codes.tolist()
    return SymbolsChanged(before.compressor, len(codes[0]), len(codes[1]), Levenshtein.distance(*codes))


def _differing(before: bytes, after: bytes) -> tuple[frozenset[int], frozenset[int]]:
    """Offsets of bytes of each that an alignment with the fewest edits puts in, takes out or replaces."""
    steps = Levenshtein.opcodes(before, after)
    apart = [step for step in steps if step.tag != "equal"]
    return (
        frozenset(place for step in apart for place in range(step.src_start, step.src_end)),
        frozenset(place for step in apart for place in range(step.dest_start, step.dest_end)),
    )


STYLE = (
    TEXT_STYLE
    + """
.text { min-height: 3.2rem; } .told { font-variant-numeric: tabular-nums; margin: .2rem 0; }
.wrong { border-left: 4px solid #b3261e; padding: .3rem .7rem; margin: .3rem 0; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.steps { max-height: 22rem; overflow-y: auto; } .steps code, table code { white-space: pre-wrap; background: none; }
.gradio-container textarea { font-family: ui-monospace, monospace !important; }
table.shown { border-collapse: collapse; width: auto; }
table.shown, table.shown tr, table.shown thead, table.shown tbody { border: 0 !important; }
table.shown td, table.shown th { padding: .15rem .9rem .15rem 0; text-align: left; vertical-align: top; border: 0; }
table.shown td.number { text-align: right; font-variant-numeric: tabular-nums; }
.kept { background: #d5ecd4; color: #1a1a1a; } .refused { background: #f5d5d3; color: #1a1a1a;
  text-decoration: line-through; } .own { background: #e6e6e6; color: #1a1a1a; }
footer { display: none !important; }
"""
)


def written_html(state: Written) -> str:
    """Prompt and new bytes by what they cost, and the figures."""
    size = len(state.text)
    told = f"writing: {size} bytes, {_bpb(state.bits)}"
    if state.done:
        told = f"done: {size} bytes, {_bpb(state.bits)}, {size / state.seconds:,.0f} bytes a second"
        if state.report is not None:
            told += f", {state.report.forwards} passes that verify, {state.report.draft_forwards} that draft"
    return (
        f"<p class=told role=status>{told}. The prompt: {len(state.prompt)} bytes, {_bpb(state.prompt_bits)}. "
        f"Colours: {scale()} bits.</p>"
        f'<pre class="text" tabindex=0 aria-label="what was written"><span class=prompt>'
        f"{coloured(state.prompt, state.prompt_bits)}</span>{coloured(state.text, state.bits)}</pre>"
    )


def steps_html(state: Written) -> str:
    """A line for each step: what was drafted, how much of it stayed, what the model put behind it."""
    if state.report is None:
        return "<p>One byte a step: nothing was drafted.</p>" if state.done else ""
    rows, place = [], 0
    for number, step in enumerate(state.report.steps, 1):
        own = state.text[place + step.accepted : place + step.kept]
        place += step.kept
        kept, refused = (_symbols(part) for part in (step.symbols[: step.accepted], step.symbols[step.accepted :]))
        source = ("the text" if step.repeated else "the drafter") if step.symbols else "nobody"
        rows.append(
            f"<tr><td class=number>{number}</td><td>{source}</td><td class=number>{len(step.symbols)}</td>"
            f"<td class=number>{step.accepted}</td><td><code><span class=kept>{kept}</span>"
            f"<span class=refused>{refused}</span></code></td><td><code class=own>{_seen(own)}</code></td></tr>"
        )
    drafted_all, right = (sum(column) for column in (state.report.offered, state.report.accepted))
    return (
        f"<p class=told>{len(rows)} steps: {drafted_all} bytes drafted, {right} of them right. Green stayed, struck "
        "through did not.</p><div class=steps tabindex=0 role=region aria-label=steps><table class=shown><thead>"
        "<tr><th>step</th><th>drafted by</th><th>drafted</th><th>right</th><th>draft</th>"
        f"<th>the model's own</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def text_html(text: bytes, bits: np.ndarray, views: list[CompressedText]) -> str:
    """A text by what its bytes cost, and through each compressor."""
    parts = [
        f"<p class=told role=status>{len(text)} bytes, {_bpb(bits)}, {bits.sum():,.0f} bits in all. "
        f"Colours: {scale()} bits.</p>",
        f'<pre class="text" tabindex=0 aria-label="bits of each byte">{coloured(text, bits)}</pre>',
        *(_view(text, view) for view in views),
    ]
    return "".join(parts)


def compared_html(compared: Compared) -> str:
    """Two texts side by side, and what became of their symbols."""
    rows = "".join(
        f"<tr><td>{html.escape(one.name)}</td><td class=number>{one.before}</td><td class=number>{one.after}</td>"
        f"<td class=number>{one.edits}</td><td class=number>{one.edits / max(1, one.before, one.after):.0%}</td></tr>"
        for one in compared.symbols
    )
    return (
        f"<p class=told role=status>{_bpb(compared.before.bits)} before, {_bpb(compared.after.bits)} after. "
        f"Colours: {scale()} bits; outlined bytes differ.</p>"
        f"<div class=sides>{_side('before', compared.before)}{_side('after', compared.after)}</div>"
        "<p class=told>Symbols that the change puts in, takes out or replaces:</p><table class=shown><thead><tr>"
        "<th>as</th><th>before</th><th>after</th><th>edits</th><th>share</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def wrong_html(sentence: str) -> str:
    """What could not be done."""
    return f'<p class=wrong role="alert">{html.escape(sentence)}</p>'


def _side(title: str, side: Side) -> str:
    return (
        f"<div><p class=told>{title}: {len(side.text)} bytes, {side.bits.sum():,.0f} bits</p>"
        f'<pre class="text" tabindex=0 aria-label="{title}">{coloured(side.text, side.bits, side.marked)}</pre></div>'
    )


def _view(text: bytes, view: CompressedText) -> str:
    name = f"<b>{html.escape(view.compressor)}</b>, {view.num_symbols:,} symbols"
    if view.refusal is not None:
        return f"<p class=told>{name}: {html.escape(view.refusal)}</p>"
    count = len(view.codes)
    told = f"{name}: {len(text)} bytes in {count} symbols, {len(text) / max(1, count):.2f} bytes a symbol"
    if view.ends is None:
        return f"<p class=told>{told}; they have no borders in the text, since each depends on others</p>"
    return (
        f'<p class=told>{told}</p><pre class="text" tabindex=0 aria-label="{html.escape(view.compressor)}">'
        f"{bordered(text, view.ends)}</pre>"
    )


def _bpb(bits: np.ndarray) -> str:
    return f"{bits.mean():.3f} bits per byte" if len(bits) else "no bits yet"


def _symbols(symbols: Sequence[int]) -> str:
    """What was drafted; a sentinel, which is no byte, as a diamond."""
    groups = groupby(symbols, key=lambda symbol: symbol >= NUM_SPECIALS)
    return "".join(
        _seen(decode_bytes(list(group))) if are_bytes else "◇" * len(list(group)) for are_bytes, group in groups
    )


def _seen(text: bytes) -> str:
    """``text`` on one line, with what cannot be seen spelled out."""
    return plain(text).replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")
