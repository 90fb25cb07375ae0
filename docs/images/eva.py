"""Draw docs/images/eva.png: who attends to whom, for one document and for packed ones."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

WINDOW, CHUNK, LENGTH = 8, 2, 24
NOTHING, SUMMARY, EXACT = 0, 1, 2
COLOURS = ["#f4f4f4", "#f2a65a", "#3b7ea1"]


def who_sees_what(starts: np.ndarray) -> np.ndarray:
    """What query ``i`` sees, summaries first, shape ``(T, N + T)``; ``starts`` as in the text."""
    query = np.arange(LENGTH)[:, None]
    chunk_end = np.arange(CHUNK - 1, LENGTH, CHUNK)
    position = np.arange(LENGTH)
    first = starts[:, None]
    summary = (chunk_end // WINDOW < query // WINDOW) & (chunk_end >= first)
    exact = (position // WINDOW == query // WINDOW) & (position <= query) & (position >= first)
    return np.concatenate([SUMMARY * summary, EXACT * exact], axis=1)


def draw(axes: plt.Axes, lengths: list[int], title: str) -> None:
    """One panel: rows of documents of ``lengths``."""
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    chunks = LENGTH // CHUNK
    axes.imshow(who_sees_what(starts), cmap=plt.matplotlib.colors.ListedColormap(COLOURS), vmin=0, vmax=2)
    axes.set_xticks(np.arange(-0.5, chunks + LENGTH), minor=True)
    axes.set_yticks(np.arange(-0.5, LENGTH), minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    for border in range(WINDOW, LENGTH, WINDOW):
        axes.axhline(border - 0.5, color="black", linewidth=1)
        axes.axvline(chunks + border - 0.5, color="black", linewidth=1)
        axes.axvline(border // CHUNK - 0.5, color="black", linewidth=1)
    axes.axvline(chunks - 0.5, color="black", linewidth=3)
    for border in np.cumsum(lengths)[:-1]:
        axes.axhline(border - 0.5, color="#c03030", linewidth=1.2, linestyle="--")
    axes.set_xticks([chunks / 2 - 0.5, chunks + LENGTH / 2 - 0.5], ["summaries of chunks", "positions"])
    axes.set_yticks([0, 7, 8, 15, 16, 23])
    axes.set_ylabel("query at position")
    axes.set_title(title, fontsize=10)


figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.3))
draw(left, [LENGTH], f"one document, window {WINDOW}, chunk {CHUNK}")
draw(right, [5, 6, 13], "three packed documents (dashed: borders)")
handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[kind]) for kind in (EXACT, SUMMARY)]
names = ["exact: own window", "one summary for a chunk of an earlier window"]
figure.legend(handles, names, loc="lower center", ncols=2)
figure.tight_layout(rect=(0, 0.06, 1, 1))
figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)
