"""Peak memory of forward and backward through a 65,856-row head: the logits of a chunk at a time against all at once.

Each side runs in a process of its own, because a process's peak never comes down again. What is there before the
loss (the interpreter, torch, the inputs) is subtracted.
"""

import json
import subprocess
import sys

ROWS = 65_856
HIDDEN = 256
POSITIONS = 4096
_SCRIPT = "from proxybyte.training.bench.loss_memory import peak; print(peak({plain}))"


def measure() -> list[dict]:
    """The row ``loss_peak_memory_mb`` for ``proxybyte bench``; smaller is better, the ratio is ours to plain."""
    ours, plain = (_in_a_process(plain) for plain in (False, True))
    return [
        {
            "name": "loss_peak_memory_mb",
            "value": ours,
            "unit": f"MB beyond the inputs, {POSITIONS} positions, hidden size {HIDDEN}, {ROWS}-row head, float32",
            "baseline": plain,
            "ratio": ours / plain,
        }
    ]


def peak(plain: bool) -> float:
    """Growth of this process's peak memory in MB over one forward and backward pass through the head."""
    import resource

    import torch
    from torch.nn import functional as F

    from proxybyte import ProxyByteConfig
    from proxybyte.losses import head_loss

    torch.manual_seed(0)
    torch.set_num_threads(1)
    head = torch.nn.Linear(HIDDEN, ROWS, bias=False)
    hidden = torch.randn(POSITIONS, HIDDEN, requires_grad=True)
    targets = torch.randint(0, ROWS, (POSITIONS,))
    chunk = ProxyByteConfig().loss_chunk_size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss = (
        F.cross_entropy(head(hidden), targets, reduction="sum")
        if plain
        else head_loss(head, hidden, targets, chunk).total
    )
    (loss / POSITIONS).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def _in_a_process(plain: bool) -> float:
    script = _SCRIPT.format(plain=plain)
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
