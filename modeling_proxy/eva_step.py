"""One step of EVA decoding, the same for all layers: which positions are new, where they go and what they see."""

from dataclasses import dataclass

import torch

from .eva_attention import EvaSpec


@dataclass(frozen=True)
class EvaStep:
    """One call's new columns, the same for all layers.

    Attributes:
        spec: window, chunk and rollback.
        before: positions that each row holds already.
        counts: new positions of each row; its first columns, the others are padding.
        columns: new columns, padding included.
        room: positions that the buffers are to have room for.
        visible: keys of the buffer that any query sees, from its start; 0 in a prefill, which does not read it.
        mask: whether a query sees a key, shape ``(B or 1, 1, T, visible)``; ``None`` if each sees all.
    """

    spec: EvaSpec
    before: tuple[int, ...]
    counts: tuple[int, ...]
    columns: int
    room: int
    visible: int = 0
    mask: torch.Tensor | None = None

    @property
    def starts(self) -> tuple[int, ...]:
        """``before``, once if it is the same for all rows."""
        return self.before[:1] if len(set(self.before)) == 1 else self.before

    @property
    def after(self) -> tuple[int, ...]:
        """Positions that each row holds then."""
        return tuple(before + count for before, count in zip(self.before, self.counts, strict=True))


def slot_positions(lengths: torch.Tensor, ring: int) -> torch.Tensor:
    """The last position written to each slot of rows of ``lengths`` ``(B,)``, shape ``(B, ring)``; negative: none."""
    last = lengths[:, None] - 1
    return last - (last - torch.arange(ring, device=lengths.device)) % ring


def step_mask(step: EvaStep, ring: int, used: int, chunks: int, device: torch.device) -> torch.Tensor:
    """Whether a query sees a slot or a summary, shape ``(B or 1, 1, T, used + chunks)``."""
    spec = step.spec
    before = torch.tensor(step.starts, device=device)
    queries = (before[:, None] + torch.arange(step.columns, device=device))[..., None]
    window = queries // spec.window * spec.window
    held = slot_positions(before + step.columns, ring)[:, None, :used]
    exact = (held >= window) & (held <= queries)
    summaries = (torch.arange(chunks, device=device) + 1) * spec.chunk <= window
    return torch.cat([exact, summaries], dim=-1)[:, None]
