"""Draw docs/images/byteify.png from the points in docs/images/byteify.json (docs/byteify.md says how they were made).

Give another JSON file of the same shape, and a place for the picture, to draw a longer run:
``python docs/images/byteify.py points.json curve.png``.
"""

import json
import sys
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
MARKS = "osD^v<>P"


def draw(points: dict, target: Path) -> None:
    """One line for each arm, a dashed one for the base through its tokenizer.

    Args:
        points: ``{"base": BPB, "fresh": BPB before training, "arms": {name: [[symbols, raw BPB], ...]}}``.
        target: the picture.
    """
    figure, axes = plt.subplots(figsize=(7, 4))
    for mark, (name, curve) in zip(cycle(MARKS), points["arms"].items(), strict=False):
        symbols, bits = zip(*curve, strict=True)
        axes.plot([count / 1000 for count in symbols], bits, marker=mark, label=name)
    base = points["base"]
    axes.axhline(base, color="grey", linestyle="--", label=f"the base through its tokenizer: {base:.2f}")
    axes.axhspan(base, 1.1 * base, color="grey", alpha=0.2, label="within 10% of it")
    axes.set(xlabel="training symbols, thousands", ylabel="raw bits per byte, held out", yscale="log", xlim=(0, None))
    axes.set_title(f"before training: {points['fresh']:.2f}", fontsize="medium")
    ticks = [1, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.4]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    source, target = sys.argv[1:3] if len(sys.argv) == 3 else (HERE / "byteify.json", HERE / "byteify.png")
    draw(json.loads(Path(source).read_text(encoding="utf-8")), Path(target))
