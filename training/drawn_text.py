"""Texts drawn as HTML: each character over a colour for what it costs a model, or with the borders of symbols.

The one owner of these colours, for the page of ``proxybyte report`` and for ``proxybyte demo``.
"""

import html
from collections.abc import Collection, Iterator

import numpy as np

TEXT_STYLE = """
pre.text { font: 13px/1.55 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0;
  background: #fafafa; color: #1a1a1a; border: 1px solid #ddd; padding: .7rem; }
.text .prompt { color: #666; } .text .a { background: #dbe9f6; } .text .b { background: #f6e7d2; }
.text .a, .text .b { border-radius: 2px; } .text .marked { outline: 2px solid #1f5fa0; outline-offset: -1px; }
.text .newline::before { content: "\\21b5"; color: #767676; }
.scale span { padding: 0 .5rem; color: #1a1a1a; }
"""
"""For a page that shows :func:`coloured`, :func:`bordered` or :func:`scale` (inside ``<pre class="text">``)."""
_MOST_BITS = 8.0


def coloured(text: bytes, bits: np.ndarray, marked: Collection[int] = ()) -> str:
    """Each character over a colour for the bits of its bytes together; what each byte costs stands in its title.

    Args:
        text: any bytes; those that are no UTF-8 are shown as U+FFFD, one by one.
        bits: what each byte costs, shape ``(len(text),)``.
        marked: offsets of bytes whose characters get an outline.
    """
    spans = []
    for begin, end in _characters(text):
        cost = float(bits[begin:end].sum())
        kinds = [
            *(["marked"] if any(place in marked for place in range(begin, end)) else []),
            *(["newline"] if text[begin:end] == b"\n" else []),
        ]
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        spans.append(
            f'<span{kind} style="background:{colour_of(cost)}" title="{_title(text[begin:end], bits[begin:end])}">'
            f"{plain(text[begin:end])}</span>"
        )
    return "".join(spans)


def bordered(text: bytes, ends: np.ndarray) -> str:
    """Each symbol's bytes in one of two colours, in turn; symbols that end no byte add none.

    Args:
        text: any bytes.
        ends: byte offset at the end of each symbol, non-decreasing.
    """
    spans, begin = [], 0
    for number, end in enumerate(np.unique(ends[ends > 0]).tolist()):
        spans.append(f'<span class="{"ab"[number % 2]}">{plain(text[begin:end])}</span>')
        begin = end
    return "".join(spans)


def scale() -> str:
    """The colours of 0 to 8 bits, with the numbers on them."""
    swatches = (f'<span style="background:{colour_of(bits)}">{bits}</span>' for bits in (0, 2, 4, 6, 8))
    return f"<span class=scale>{''.join(swatches)}</span>"


def colour_of(bits: float) -> str:
    """White for nothing to a strong orange for eight bits and more; dark text stays readable on it."""
    share = min(bits, _MOST_BITS) / _MOST_BITS
    return f"rgb(255,{round(255 - 115 * share)},{round(255 - 215 * share)})"


def plain(text: bytes) -> str:
    """The text alone, escaped."""
    return html.escape(text.decode("utf-8", "replace"))


def _characters(text: bytes) -> Iterator[tuple[int, int]]:
    """Where each character begins and ends; a byte that belongs to none stands alone."""
    place = 0
    for character in text.decode("utf-8", "surrogateescape"):
        end = place + len(character.encode("utf-8", "surrogateescape"))
        yield place, end
        place = end


def _title(text: bytes, bits: np.ndarray) -> str:
    """``3.1 bits``, and of a character of several bytes what each of them costs."""
    whole = f"{float(bits.sum()):.1f} bits"
    if len(text) == 1:
        return whole
    return f"{whole}: {', '.join(f'{byte:02x} {cost:.1f}' for byte, cost in zip(text, bits.tolist(), strict=True))}"


Colour = tuple[float, float, float, float]


def distinct_colours(count: int) -> list[Colour]:
    """``count`` different colours: the usual ten, up to twenty in pairs, more along a scale."""
    from matplotlib import colormaps  # takes a second to import

    if count <= 20:
        palette = colormaps["tab10" if count <= 10 else "tab20"]
        return [palette(number) for number in range(count)]
    return [colormaps["turbo"](number / (count - 1)) for number in range(count)]
