"""The page itself: one HTML file that needs nothing beside it."""

import base64
import html
from collections.abc import Iterator
from pathlib import Path

from ..drawn_text import TEXT_STYLE, bordered, coloured, plain, scale
from .findings import Findings, TwoViewsOfText

_STYLE = f"""{TEXT_STYLE}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  background: #fff; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .25rem .9rem .25rem 0; text-align: left; }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; }} tr.first td {{ font-weight: 600; }}
td.bar {{ width: 18rem; }} .bar i {{ display: block; height: .7rem; background: #8db4d9; }} tr.first .bar i
  {{ background: #1f5fa0; }}
.note {{ color: #555; font-size: .92rem; }} img {{ max-width: 100%; }}
@media (max-width: 40rem) {{ td.bar {{ width: 7rem; }} }}
"""


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
        yield f"<p>{title}:</p><pre class=text><span class=prompt>{plain(sample.prompt)}</span>{plain(text)}</pre>"


def _two_views(views: TwoViewsOfText) -> Iterator[str]:
    yield "<h2>One document, two views</h2>"
    if views.ends is not None:
        yield (
            f"<p class=note>The compressed view ({_text(views.compressor)}): {len(views.text):,} bytes in "
            f"{views.codes:,} symbols, one colour after the other.</p>"
        )
        yield f"<pre class=text>{bordered(views.text, views.ends)}</pre>"
    yield (f"<p class=note>The raw view: each character by what it costs the model, from {scale()} bits.</p>")
    yield f"<pre class=text>{coloured(views.text, views.bits)}</pre>"


def _text(text: str) -> str:
    return html.escape(text)
