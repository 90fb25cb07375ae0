"""The page itself: one HTML file that needs nothing beside it."""

import base64
import html
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .findings import Findings, TwoViewsOfText

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .9rem .25rem 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } tr.first td { font-weight: 600; }
td.bar { width: 18rem; } .bar i { display: block; height: .7rem; background: #8db4d9; } tr.first .bar i
  { background: #1f5fa0; }
pre { font: 13px/1.55 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; background: #fafafa;
  border: 1px solid #ddd; padding: .7rem; }
.prompt { color: #666; } .note { color: #555; font-size: .92rem; } img { max-width: 100%; }
.a { background: #dbe9f6; } .b { background: #f6e7d2; } .a, .b { border-radius: 2px; }
@media (max-width: 40rem) { td.bar { width: 7rem; } }
.scale span { padding: 0 .5rem; }
"""
_MOST_BITS = 8.0


def page(findings: Findings, curves: Path | None) -> str:
    """The whole page; ``curves`` is a PNG to show, if there is one."""
    parts = [
        f"<h1>{_text(findings.run.name)}</h1>",
        f"<p>{findings.parameters:,} parameters. Figures are over {findings.documents:,} held-out documents, "
        f"{findings.n_bytes:,} bytes, each read alone.</p>",
        *_figures(findings),
        *_curves(curves),
        *_sample(findings),
        *_two_views(findings.views),
    ]
    head = f'<meta charset="utf-8"><title>{_text(findings.run.name)}</title><style>{_STYLE}</style>'
    width = '<meta name="viewport" content="width=device-width">'
    return f'<!doctype html><html lang="en"><head>{head}{width}</head><body>{"".join(parts)}</body></html>\n'


def why_files_win() -> str:
    """Why the last line of the table can be the lowest."""
    return (
        "xz over all documents as one file may look back at every earlier document and copy what they share; "
        "the model, gzip and the line above read each document alone."
    )


def _figures(findings: Findings) -> Iterator[str]:
    widest = max(figure.bits_per_byte for figure in findings.figures)
    yield "<h2>Bits per byte of raw text</h2><table>"
    for number, figure in enumerate(findings.figures):
        share = 100 * figure.bits_per_byte / widest
        yield (
            f"<tr{' class=first' if number == 0 else ''}><td>{_text(figure.name)}</td>"
            f"<td class=number>{figure.bits_per_byte:.3f}</td>"
            f'<td class=bar><i style="width:{share:.1f}%"></i></td></tr>'
        )
    yield f"</table><p class=note>{why_files_win()}</p>"


def _curves(curves: Path | None) -> Iterator[str]:
    if curves is not None and curves.is_file():
        data = base64.b64encode(curves.read_bytes()).decode("ascii")
        yield "<h2>Curves</h2>"
        yield f'<img alt="loss and bits per byte by view over the steps" src="data:image/png;base64,{data}">'


def _sample(findings: Findings) -> Iterator[str]:
    sample = findings.sample
    yield "<h2>What it writes</h2>"
    yield (
        f"<p class=note>Greedy, from a held-out document; of {sample.of} prompts the one whose continuation agrees "
        f"most with the text ({sample.agreement:.0%}).</p>"
    )
    for title, text in (("the model", sample.written), ("the text", sample.text)):
        yield f"<p>{title}:</p><pre><span class=prompt>{_bytes(sample.prompt)}</span>{_bytes(text)}</pre>"


def _two_views(views: TwoViewsOfText) -> Iterator[str]:
    yield "<h2>One document, two views</h2>"
    if views.ends is not None:
        yield (
            f"<p class=note>The compressed view ({_text(views.compressor)}): {len(views.text):,} bytes in "
            f"{views.codes:,} symbols, one colour after the other.</p>"
        )
        yield f"<pre>{_bordered(views.text, views.ends)}</pre>"
    yield (
        "<p class=note>The raw view: each character by what it costs the model, from "
        f"<span class=scale>{''.join(_swatch(bits) for bits in (0, 2, 4, 6, 8))}</span> bits.</p>"
    )
    yield f"<pre>{_coloured(views.text, views.bits)}</pre>"


def _swatch(bits: int) -> str:
    return f'<span style="background:{_colour(bits)}">{bits}</span>'


def _bordered(text: bytes, ends: np.ndarray) -> str:
    """Each symbol's bytes in one of two colours; symbols that end no byte add none."""
    spans, begin, number = [], 0, 0
    for end in np.unique(ends).tolist():
        spans.append(f'<span class="{"ab"[number % 2]}">{_bytes(text[begin:end])}</span>')
        begin, number = end, number + 1
    return "".join(spans)


def _coloured(text: bytes, bits: np.ndarray) -> str:
    """Each character over a colour for the bits of its bytes together."""
    spans, place = [], 0
    for character in text.decode("utf-8", "surrogateescape"):
        size = len(character.encode("utf-8", "surrogateescape"))
        cost = float(bits[place : place + size].sum())
        spans.append(
            f'<span style="background:{_colour(cost)}" title="{cost:.1f} bits">'
            f"{_bytes(text[place : place + size])}</span>"
        )
        place += size
    return "".join(spans)


def _colour(bits: float) -> str:
    """White for nothing to a strong orange for eight bits and more; dark text stays readable on it."""
    share = min(bits, _MOST_BITS) / _MOST_BITS
    return f"rgb(255,{round(255 - 115 * share)},{round(255 - 215 * share)})"


def _bytes(text: bytes) -> str:
    return _text(text.decode("utf-8", "replace"))


def _text(text: str) -> str:
    return html.escape(text)
