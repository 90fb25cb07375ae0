"""Draw docs/images/acceptance.png from docs/images/acceptance.json: how often drafts of the heads are right.

``python docs/images/acceptance.py --measure RUN`` first measures it anew with the prompts and the checkpoint of
``make bench GROUP=multibyte``: texts are written, then each position's heads are compared with what came.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
TEXTS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "temperature 0.5": {"do_sample": True, "top_k": 0, "temperature": 0.5},
    "temperature 1.0": {"do_sample": True, "top_k": 0, "temperature": 1.0},
}
MARKS = "osD"


def measure(run: Path) -> dict[str, dict[str, list[float]]]:
    """For each kind of text the share of positions where head 1, 2, ... is right, and where all up to it are."""
    import torch

    from proxybyte import ProxyByteForCausalLM

    sys.path.insert(0, str(HERE.parents[1] / "tests" / "benchmarks"))
    from multibyte_bench import NEW_BYTES, PROMPT_BYTES, _prompts

    model = ProxyByteForCausalLM.from_pretrained(run / "model").eval()
    prompts = torch.stack(_prompts())
    shares = {}
    for name, how in TEXTS.items():
        torch.manual_seed(0)
        texts = model.generate(prompts, max_new_tokens=NEW_BYTES, eos_token_id=None, draft="heads", **how)
        with torch.no_grad():
            drafts = model(texts, return_head_logits=True, use_cache=False).head_logits.argmax(dim=-1)
        positions = range(PROMPT_BYTES, PROMPT_BYTES + NEW_BYTES - drafts.shape[2])
        right = torch.stack(
            [
                torch.stack([drafts[:, t, head] == texts[:, t + 2 + head] for t in positions])
                for head in range(drafts.shape[2])
            ]
        ).double()
        shares[name] = {
            "alone": [round(share, 3) for share in right.mean(dim=(1, 2)).tolist()],
            "with all before": [round(share, 3) for share in right.cumprod(dim=0).mean(dim=(1, 2)).tolist()],
        }
    return shares


def draw(shares: dict[str, dict[str, list[float]]], target: Path) -> None:
    """A line for each kind of text, and a thin one for each head by itself."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for mark, (name, lines) in zip(MARKS, shares.items(), strict=True):
        places = range(1, 1 + len(lines["alone"]))
        (line,) = axes.plot(places, lines["with all before"], marker=mark, label=f"{name}: right up to this place")
        axes.plot(places, lines["alone"], color=line.get_color(), linestyle=":", label=f"{name}: this head alone")
    axes.set(xlabel="head, that is place of the draft", ylabel="share of positions", ylim=(0, 1))
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    points = HERE / "acceptance.json"
    if sys.argv[1:2] == ["--measure"]:
        points.write_text(json.dumps(measure(Path(sys.argv[2])), indent=1) + "\n", encoding="utf-8")
    draw(json.loads(points.read_text(encoding="utf-8")), HERE / "acceptance.png")
