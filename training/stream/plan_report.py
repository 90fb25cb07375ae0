"""What a plan will do, before it does it: the share of documents, of bytes and of symbols in each view.

The three differ: at 2.9 bytes a symbol, 90% compressed documents are about 90% of the bytes but 76% of the symbols.
"""

from dataclasses import asdict, dataclass, field

import numpy as np

from proxybyte.symbols import View

from .placement import Form
from .plan import StreamPlan
from .schedule import Phase

FILLS_A_PHASE = 0.5
"""A document of this share of a phase's symbols leaves the model little else to see in it."""

_CHUNK = 1_000_000


@dataclass(frozen=True)
class ViewShare:
    """One view's part of one phase.

    Attributes:
        phase: of the schedule.
        view: the view.
        views: appearances of a document in this view (a pair is one in each; a hand-off too; in a switched
            document each stretch is one).
        text_bytes: bytes of text shown in this view.
        symbols: symbols spent on that text, sentinels not counted.
    """

    phase: Phase
    view: View
    views: int
    text_bytes: int
    symbols: int


@dataclass(frozen=True)
class PlanReport:
    """The shares of a whole plan.

    Attributes:
        rows: rows in the run.
        begins: first step of each phase that has any.
        placements: documents in the stream, epochs and twins counted.
        epochs: passes over the documents, the last one in part.
        raw_only: placements that are raw because the compressor has no code for them.
        shares: by phase and view.
        seen: different documents in the stream.
        documents: of the split.
        largest: the share of each phase's symbols that its largest document takes; of phases that have a step.
    """

    rows: int
    begins: dict[Phase, int]
    placements: int
    epochs: float
    raw_only: int
    shares: tuple[ViewShare, ...]
    seen: int = 0
    documents: int = 0
    largest: dict[Phase, float] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Plain data for a JSON file."""
        return asdict(self)

    def table(self) -> str:
        """The shares as text, percentages within each phase."""
        columns = f"{'phase':<8} {'view':<11} {'documents':>10} {'text bytes':>15} {'symbols':>15}"
        empty = [f"{phase} is empty: {self._why_empty(phase)}" for phase in Phase if phase not in self.begins]
        lines = [
            f"{self.rows:,} rows, {self.placements:,} documents placed, {self.epochs:.2f} epochs, "
            f"{self.raw_only:,} raw because the compressor cannot code them",
            "; ".join([", ".join(f"{phase} from step {step:,}" for phase, step in self.begins.items()), *empty]),
            f"{columns} {'% documents':>12} {'% bytes':>8} {'% symbols':>10}",
        ]
        for share in self.shares:
            counts = [_counts(other) for other in self.shares if other.phase == share.phase]
            parts = zip(_counts(share), np.sum(counts, axis=0), strict=True)
            shown = (f"{100 * part / max(whole, 1):.1f}%" for part, whole in parts)
            percent = "{:>12} {:>8} {:>10}".format(*shown)
            views, text_bytes, symbols = _counts(share)
            lines.append(f"{share.phase:<8} {share.view:<11} {views:>10,} {text_bytes:>15,} {symbols:>15,} {percent}")
        return "\n".join(lines)

    def _why_empty(self, phase: Phase) -> str:
        """Of a phase in which no document begins."""
        return "one document that began before fills it" if phase in self.largest else "it has no step"

    def warnings(self) -> list[str]:
        """Where the plan will disappoint, one sentence each."""
        return [
            f"one document fills {share:.0%} of the {phase} phase: cut the corpus into shorter documents "
            "('proxybyte corpus --cut-bytes 4096'), or raise plan.budget"
            for phase, share in self.largest.items()
            if share >= FILLS_A_PHASE
        ]


def _counts(share: ViewShare) -> tuple[int, int, int]:
    return share.views, share.text_bytes, share.symbols


def report(plan: StreamPlan) -> PlanReport:
    """Count what every placement of ``plan`` shows, in blocks of a million so that memory stays small."""
    placed = plan.placements
    phases = list(plan.begins)
    first = np.array(list(plan.begins.values()))
    totals: dict[tuple[Phase, View], np.ndarray] = {}
    for begin in range(0, len(placed), _CHUNK):
        index = np.arange(begin, min(begin + _CHUNK, len(placed)))
        spans = plan.segments(index)
        phase_of = np.searchsorted(first, index, "right") - 1
        for number in np.unique(phase_of).tolist():
            for code, view in enumerate((View.RAW, View.COMPRESSED)):
                chosen = (spans.view == code) & (phase_of == number)
                counts = np.array([chosen.sum(), spans.text_bytes[chosen].sum(), spans.length[chosen].sum()])
                key = (phases[number], view)
                totals[key] = totals.get(key, 0) + counts
    shares = tuple(ViewShare(phase, view, *(int(n) for n in counts)) for (phase, view), counts in totals.items())
    once = placed.form != Form.PARALLEL_COMPRESSED
    return PlanReport(
        rows=plan.num_rows,
        begins={phase: plan.phases.span(phase)[0] for phase in plan.begins},
        placements=len(placed),
        epochs=float(once.sum() / len(plan.lengths)),
        raw_only=int((plan.lengths.n_symbols[placed.document] < 0).sum()),
        shares=shares,
        seen=len(np.unique(placed.document)),
        documents=len(plan.lengths),
        largest=_largest(plan),
    )


def _largest(plan: StreamPlan) -> dict[Phase, float]:
    """The share of each phase's symbols that its largest document takes, over all its appearances."""
    start, document = plan.placements.start, plan.placements.document
    step_length = plan.rows_per_step * plan.config.row_capacity
    shares = {}
    for phase in Phase:
        first, last = (step * step_length for step in plan.phases.span(phase))
        last = min(last, int(start[-1]))
        if first >= last:
            continue
        low, high = np.searchsorted(start, first, "right") - 1, np.searchsorted(start, last, "left")
        length = np.minimum(start[low + 1 : high + 1], last) - np.maximum(start[low:high], first)
        shares[phase] = float(np.bincount(document[low:high], weights=length).max() / (last - first))
    return shares
