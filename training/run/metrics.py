"""What a run measures of itself, for each view apart, and the file ``metrics.jsonl``.

Which view a symbol belongs to follows from the symbol. Loss is nats per symbol of text in that view (sentinels are in
neither); BPB is ``nats / ln 2 / bytes`` of the text behind those symbols.

Sums over rows are made on the main process in the order of the rows, so that they are the same to the last bit for
any number of processes.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch

from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_text
from proxybyte.modeling_proxybyte import ProxyByteOutput
from proxybyte.symbols import COMPRESSED_OFFSET, NUM_SPECIALS, View

from ..stream.mixed_view import PackedBatch

METRICS_FILE = "metrics.jsonl"


class Count(IntEnum):
    """What is counted in a batch, on the host."""

    TARGETS = 0
    RAW_SYMBOLS = 1
    COMPRESSED_SYMBOLS = 2
    RAW_DOCUMENTS = 3
    COMPRESSED_DOCUMENTS = 4
    RAW_BYTES = 5
    COMPRESSED_BYTES = 6


class Nats(IntEnum):
    """Columns of a row's summed losses."""

    ALL = 0
    RAW = 1
    COMPRESSED = 2


def count_batch(batch: PackedBatch) -> np.ndarray:
    """Counts of one batch, shape ``(len(Count),)``, float64 (exact: all below 2^53).

    A document counts in a view once, where that view of it closes. Symbols and bytes are those of text.
    """
    symbols = batch.input_ids.numpy()
    counts = np.zeros(len(Count))
    counts[Count.TARGETS] = batch.num_targets
    compressed = int(np.count_nonzero(symbols >= COMPRESSED_OFFSET))
    counts[Count.COMPRESSED_SYMBOLS] = compressed
    counts[Count.RAW_SYMBOLS] = int(np.count_nonzero(symbols >= NUM_SPECIALS)) - compressed
    counts[Count.RAW_DOCUMENTS] = int(np.count_nonzero(symbols == View.RAW.close))
    counts[Count.COMPRESSED_DOCUMENTS] = int(np.count_nonzero(symbols == View.COMPRESSED.close))
    counts[Count.RAW_BYTES] = batch.text_bytes[View.RAW]
    counts[Count.COMPRESSED_BYTES] = batch.text_bytes[View.COMPRESSED]
    return counts


def nats_by_row(output: ProxyByteOutput, labels: torch.Tensor) -> torch.Tensor:
    """Each row's summed losses.

    Args:
        output: of the model, with labels: ``target_nll`` of shape ``(B, T - 1)``, and with heads 1 to ``H``
            ``head_nll`` and ``head_targets`` of shape ``(B, 1 + H)``.
        labels: shape ``(B, T)``.

    Returns:
        Shape ``(B, len(Nats) + 2 * H)``: over all targets, over raw text, over compressed text; then over the targets
        of each head from 1, and then their numbers.
    """
    target_nll = cast(torch.Tensor, output.target_nll)
    targets = labels[:, 1:]
    compressed = targets >= COMPRESSED_OFFSET
    raw = (targets >= NUM_SPECIALS) & ~compressed
    masked = (target_nll, target_nll * raw, target_nll * compressed)
    sums = torch.stack([values.sum(dim=1) for values in masked], dim=1)
    if output.head_nll is None or output.head_targets is None:
        return sums
    return torch.cat([sums, output.head_nll[:, 1:], output.head_targets[:, 1:].to(sums.dtype)], dim=1)


@dataclass
class Totals:
    """What the run has seen since its start."""

    symbols: float = 0.0
    """Symbols of packed rows, sentinels and padding among them."""
    flops: float = 0.0
    raw_symbols: float = 0.0
    compressed_symbols: float = 0.0
    raw_documents: float = 0.0
    compressed_documents: float = 0.0
    raw_bytes: float = 0.0
    compressed_bytes: float = 0.0

    def add(self, counts: np.ndarray, symbols: int, flops: float) -> None:
        """Add one step's ``counts`` (shape ``(len(Count),)``), its packed symbols and its FLOPs."""
        self.symbols += symbols
        self.flops += flops
        for count in list(Count)[1:]:
            name = count.name.lower()
            setattr(self, name, getattr(self, name) + float(counts[count]))

    def as_dict(self) -> dict[str, float]:
        """For a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Self:
        """The inverse of :meth:`as_dict`."""
        return cls(**values)

    def shares(self) -> dict[str, float]:
        """Documents, bytes and symbols seen in each view, and the view's share of them, by metric name."""
        shares: dict[str, float] = {}
        for what in ("documents", "bytes", "symbols"):
            raw, compressed = getattr(self, f"raw_{what}"), getattr(self, f"compressed_{what}")
            for view, seen in ((View.RAW, raw), (View.COMPRESSED, compressed)):
                shares[f"{view}/{what}"] = seen
                shares[f"{view}/share_of_{what}"] = seen / max(raw + compressed, 1.0)
        return shares


def step_losses(nats: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Loss and BPB of one step, by metric name; a view or a head without targets in it has none.

    Args:
        nats: shape ``(rows, len(Nats) + 2 * H)`` of :func:`nats_by_row`, float64, in the order of the rows.
        counts: shape ``(len(Count),)``.
    """
    total = nats.sum(axis=0)
    losses = {"loss": float(total[Nats.ALL] / max(counts[Count.TARGETS], 1.0))}
    for view, nat, symbols, text_bytes in (
        (View.RAW, Nats.RAW, Count.RAW_SYMBOLS, Count.RAW_BYTES),
        (View.COMPRESSED, Nats.COMPRESSED, Count.COMPRESSED_SYMBOLS, Count.COMPRESSED_BYTES),
    ):
        if counts[symbols] > 0:
            losses[f"{view}/loss"] = float(total[nat] / counts[symbols])
            losses[f"{view}/bpb"] = float(total[nat] / math.log(2) / counts[text_bytes])
    for head, (nat, targets) in enumerate(total[len(Nats) :].reshape(2, -1).T, start=1):
        if targets > 0:
            losses[head_metric(head)] = float(nat / targets)
    return losses


def head_metric(head: int) -> str:
    """Name of the loss of head ``head``; the first head's is ``loss``."""
    return f"head_{head}/loss" if head else "loss"


def refuse_nan(step: int, rows: np.ndarray, nats: np.ndarray, grad_norm: float) -> None:
    """Stop a run whose numbers have left the road.

    Args:
        step: number of the step, from 1.
        rows: row numbers of the step, shape ``(rows,)``.
        nats: shape ``(rows, len(Nats) + 2 * H)``, in the same order.
        grad_norm: the step's gradient norm before clipping.

    Raises:
        ProxyByteError: naming the step and the rows whose loss is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(nats).all(axis=1))
    advice = "resume from the last checkpoint with a smaller optimizer.lr in a new output folder"
    if len(bad):
        named = ", ".join(str(row) for row in sorted(rows[bad])[:8]) + (", ..." if len(bad) > 8 else "")
        raise ProxyByteError(f"the loss of row(s) {named} is not finite at step {step}: {advice}")
    if not math.isfinite(grad_norm):
        raise ProxyByteError(
            f"the gradient norm is {grad_norm} at step {step} (rows {', '.join(map(str, sorted(rows)))}), though "
            f"their losses are finite: {advice}"
        )


class MetricsLog:
    """``metrics.jsonl`` in a run folder: one JSON object a line, each with ``kind`` and ``step``."""

    def __init__(self, folder: Path):
        self.path = folder / METRICS_FILE

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines at the end."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; a last line that a killed run left half written is dropped.

        Raises:
            ProxyByteError: naming another line that is no metrics of a step.
        """
        if not self.path.exists():
            return []
        lines = []
        texts = self.path.read_bytes().split(b"\n")
        for number, text in enumerate(texts, 1):
            try:
                lines.append(_metrics_line(text))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                if not b"".join(texts[number:]).strip(b"\0"):
                    break
                raise ProxyByteError(
                    f"{self.path}:{number} is damaged: mend or remove that line, or move the file away"
                ) from error
        return lines

    def last_evaluation(self) -> dict[str, float]:
        """Figures of the last evaluation by name; empty without one."""
        lines = [line for line in self.read() if line["kind"] == "evaluation"]
        return {name: value for name, value in lines[-1].items() if name not in ("kind", "step")} if lines else {}

    def cut(self, begun: int | None) -> None:
        """Drop what was written after step ``begun``, so that a resumed run writes no line twice.

        Args:
            begun: the step of the checkpoint that the run goes on from; ``None`` where it begins, and keeps nothing.

        Raises:
            ProxyByteError: naming a line that is damaged.
        """
        if not self.path.exists():
            return
        kept = [] if begun is None else [line for line in self.read() if line["step"] <= begun]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))


def _metrics_line(text: bytes) -> dict[str, Any]:
    """One line of the file as an object whose ``step`` is a number, and whose ``kind`` is there."""
    line = json.loads(text)
    if not isinstance(line["step"], int) or not isinstance(line["kind"], str):
        raise TypeError
    return dict(line)
