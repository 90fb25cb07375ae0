"""What a plan will do, before it does it: the share of documents, of bytes and of symbols in each view.

The three differ: at 2.9 bytes a symbol, 90% compressed documents are about 90% of the bytes but 76% of the symbols.
"""

from dataclasses import asdict, dataclass

import numpy as np

from proxybyte.symbols import View

from .placement import Form, Placements
from .plan import StreamPlan

PHASES = ("warmup", "steady", "decay")
_CHUNK = 1_000_000


@dataclass(frozen=True)
class ViewShare:
    """One view's part of one phase.

    Attributes:
        phase: ``"warmup"``, ``"steady"`` or ``"decay"``.
        view: the view.
        views: appearances of a document in this view (a pair is one in each; a hand-off too).
        text_bytes: bytes of text shown in this view.
        symbols: symbols spent on that text, sentinels not counted.
    """

    phase: str
    view: View
    views: int
    text_bytes: int
    symbols: int


@dataclass(frozen=True)
class PlanReport:
    """The shares of a whole plan.

    Attributes:
        rows: rows in the run.
        placements: documents in the stream, epochs and twins counted.
        epochs: passes over the documents, the last one in part.
        raw_only: placements that are raw because the compressor has no code for them.
        shares: by phase and view.
    """

    rows: int
    placements: int
    epochs: float
    raw_only: int
    shares: tuple[ViewShare, ...]

    def to_json(self) -> dict:
        """Plain data for a JSON file."""
        return asdict(self)

    def table(self) -> str:
        """The shares as text, percentages within each phase."""
        head = f"{'phase':<8} {'view':<11} {'documents':>10} {'text bytes':>15} {'symbols':>15}   share of each"
        lines = [
            f"{self.rows:,} rows, {self.placements:,} documents placed, {self.epochs:.2f} epochs, "
            f"{self.raw_only:,} raw for want of a code",
            head,
        ]
        for share in self.shares:
            counts = [_counts(other) for other in self.shares if other.phase == share.phase]
            parts = zip(_counts(share), np.sum(counts, axis=0), strict=True)
            percent = " ".join(f"{100 * part / max(whole, 1):5.1f}%" for part, whole in parts)
            views, text_bytes, symbols = _counts(share)
            lines.append(f"{share.phase:<8} {share.view:<11} {views:>10,} {text_bytes:>15,} {symbols:>15,}   {percent}")
        return "\n".join(lines)


def _counts(share: ViewShare) -> tuple[int, int, int]:
    return share.views, share.text_bytes, share.symbols


def report(plan: StreamPlan) -> PlanReport:
    """Count what every placement of ``plan`` shows, in blocks of a million so that memory stays small."""
    placed = plan.placements
    phases = _phases(plan)
    totals: dict[tuple[str, View], np.ndarray] = {}
    for begin in range(0, len(placed), _CHUNK):
        index = np.arange(begin, min(begin + _CHUNK, len(placed)))
        spans = plan.segments(index)
        n_bytes = plan.lengths.n_bytes[placed.document[index]].astype(np.int64)
        border = spans.begin[1]
        text = np.where(placed.form[index] == Form.HAND_OFF, np.stack([border, n_bytes - border]), n_bytes)
        for phase in np.unique(phases[index]):
            for code, view in enumerate((View.RAW, View.COMPRESSED)):
                chosen = (spans.view == code) & (phases[index] == phase)
                counts = np.array([chosen.sum(), text[chosen].sum(), spans.length[chosen].sum()])
                key = (str(phase), view)
                totals[key] = totals.get(key, 0) + counts
    in_order = sorted(totals.items(), key=lambda item: PHASES.index(item[0][0]))
    shares = tuple(ViewShare(phase, view, *(int(n) for n in counts)) for (phase, view), counts in in_order)
    once = placed.form != Form.PARALLEL_COMPRESSED
    return PlanReport(
        rows=plan.num_rows,
        placements=len(placed),
        epochs=float(once.sum() / len(plan.lengths)),
        raw_only=int((plan.lengths.n_symbols[placed.document] < 0).sum()),
        shares=shares,
    )


def _phases(plan: StreamPlan) -> np.ndarray:
    """Name of the phase of each placement, by its place in the stream."""
    placed: Placements = plan.placements
    schedule = plan.config.schedule
    progress = placed.start[:-1] / placed.start[-1]
    phases = np.full(len(placed), "steady", "<U6")
    phases[progress < schedule.warmup] = "warmup"
    if schedule.decay > 0:
        phases[progress >= 1.0 - schedule.decay] = "decay"
    return phases
