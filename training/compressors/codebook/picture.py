"""A picture of a part of a codebook: the strings that begin with a given one, as a tree."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_figure

from .trie import NUM_SINGLES, Trie

_VISIBLE = {ord(" "): "␣", ord("\n"): "⏎", ord("\t"): "⇥"}


def draw_trie(trie: Trie, start: bytes, path: Path, most: int = 48) -> None:
    """Draw the first ``most`` strings of ``trie`` below ``start`` into ``path`` (PNG or SVG).

    Each node shows its last byte; its symbol is the string from the left end to it.

    Raises:
        ProxyByteError: if the trie does not hold ``start``.
    """
    root = _find(trie, start)
    children: dict[int, list[int]] = {root: []}
    for node in range(NUM_SINGLES, len(trie)):
        prefix = int(trie.prefixes[node])
        if prefix in children and len(children) <= most:
            children[prefix].append(node)
            children[node] = []
    height: dict[int, float] = {}
    leaves = _place(root, children, height, 0)
    depth = trie.spellings.lengths
    figure = Figure(figsize=(0.62 * (max(depth[node] for node in children) - depth[root]) + 1.6, 0.26 * leaves + 0.3))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    for node, below in children.items():
        for child in below:
            axes.plot(
                [depth[node], depth[child]], [height[node], height[child]], color="#bbbbbb", linewidth=0.8, zorder=1
            )
    for node in children:
        label = _label(start) if node == root else _label(bytes([trie.last_bytes[node]]))
        box = {"boxstyle": "round,pad=0.25", "facecolor": "#eef3fb", "edgecolor": "#6688bb", "linewidth": 0.6}
        axes.text(
            depth[node], height[node], label, ha="center", va="center", fontsize=8, family="DejaVu Sans Mono", bbox=box
        )
    axes.set_xlim(depth[root] - 1.2, max(depth[node] for node in children) + 0.6)
    axes.set_ylim(leaves - 0.3, -0.7)
    axes.axis("off")
    write_figure(path, figure, dpi=100)


def _find(trie: Trie, string: bytes) -> int:
    if not string:
        raise ProxyByteError("a picture needs at least one byte to start from")
    node = string[0]
    for byte in string[1:]:
        found = np.flatnonzero((trie.prefixes == node) & (trie.last_bytes == byte))
        found = found[found >= NUM_SINGLES]
        if not len(found):
            raise ProxyByteError(f"the codebook holds no string {string!r} to draw from")
        node = int(found[0])
    return node


def _place(node: int, children: dict[int, list[int]], height: dict[int, float], leaves: int) -> int:
    """Give every node below ``node`` a height, leaves one each from ``leaves`` on; the number of leaves then."""
    if not children[node]:
        height[node] = leaves
        return leaves + 1
    for child in children[node]:
        leaves = _place(child, children, height, leaves)
    height[node] = (height[children[node][0]] + height[children[node][-1]]) / 2
    return leaves


def _label(string: bytes) -> str:
    return "".join(_VISIBLE.get(byte, chr(byte) if 32 < byte < 127 else f"\\x{byte:02x}") for byte in string)
