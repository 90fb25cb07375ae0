"""Peak memory of forward and backward through a 65,856-row head: the logits of a chunk at a time against all at once.

Each side runs in a process of its own; what is there before the loss (the interpreter, torch, the inputs) is left out.
"""

from collections.abc import Iterator

import torch
from figures import Figure, in_a_process, peak_growth_mb
from torch.nn import functional as F

from proxybyte import ProxyByteConfig
from proxybyte.losses import head_loss

ROWS = 65_856
HIDDEN = 256
POSITIONS = 4096


def measure(long: bool) -> Iterator[Figure]:
    """The row ``loss_peak_memory_mb``; smaller is better, the ratio is ours to plain.

    Raises:
        RuntimeError: if a side takes less than the gradients that both have to write.
    """
    ours, plain = (in_a_process(f"loss_memory_bench.peak({side})")[0] for side in (False, True))
    gradients = 4 * HIDDEN * (ROWS + POSITIONS) / 1e6
    if min(ours, plain) < gradients:
        raise RuntimeError(f"{ours:.0f} and {plain:.0f} MB: less than the {gradients:.0f} MB of the gradients alone")
    yield {
        "name": "loss_peak_memory_mb",
        "value": ours,
        "unit": f"MB beyond the inputs, {POSITIONS} positions, hidden size {HIDDEN}, {ROWS}-row head, float32",
        "baseline": plain,
        "ratio": ours / plain,
    }


def peak(plain: bool) -> tuple[float]:
    """Growth of this process's peak memory in MB over one forward and backward pass through the head."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    head = torch.nn.Linear(HIDDEN, ROWS, bias=False)
    hidden = torch.randn(POSITIONS, HIDDEN, requires_grad=True)
    targets = torch.randint(0, ROWS, (POSITIONS,))
    chunk = ProxyByteConfig().loss_chunk_size

    def step() -> None:
        loss = (
            F.cross_entropy(head(hidden), targets, reduction="sum")
            if plain
            else head_loss(head, hidden, targets, chunk).total
        )
        (loss / POSITIONS).backward()

    return (peak_growth_mb(step),)
