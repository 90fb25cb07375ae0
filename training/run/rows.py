"""Which rows each process takes at each step, and their fetching one step ahead."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from proxybyte.errors import ProxyByteError

from ..stream.mixed_view import PackedBatch, RowBatch, collate
from .metrics import count_batch


class RowSource(Protocol):
    """A dataset of packed rows by random access."""

    @property
    def where(self) -> str:
        """What it reads from, for messages."""
        ...

    def __len__(self) -> int: ...

    def batch(self, rows: Sequence[int]) -> RowBatch:
        """Rows ``rows``, in that order."""
        ...

    def describe(self) -> str:
        """What the run will show."""
        ...


@dataclass(frozen=True)
class RowOrder:
    """Which rows of the plan make each step: a pure function of the step.

    Consecutive rows show the same document, and a document has one view: steps of consecutive rows would swing from one
    view to the other (measured: the loss went from 2.6 to 13 where the first compressed document began). So the rows
    of ``shuffle_steps`` steps are shuffled together; a phase of the schedule is not mixed with the next.

    Attributes:
        rows_per_step: rows of a step over all processes.
        steps: steps of the run.
        shuffle_steps: length of a stretch that is shuffled; shorter at the end of a phase.
        seed: of the shuffle.
        phases: steps at which a phase of the schedule begins, ascending, beside 0.
    """

    rows_per_step: int
    steps: int
    shuffle_steps: int = 1
    seed: int = 0
    phases: tuple[int, ...] = ()

    def stretch(self, step: int) -> tuple[int, int]:
        """First and last-plus-one step of the stretch that ``step`` lies in."""
        edges = (0, *self.phases, self.steps)
        phase = bisect_right(edges, step) - 1
        first = edges[phase] + (step - edges[phase]) // self.shuffle_steps * self.shuffle_steps
        return first, min(first + self.shuffle_steps, edges[phase + 1])

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of step ``step`` (from 0), shape ``(rows_per_step,)``."""
        first, last = self.stretch(step)
        order = _permutation(self.seed, first, (last - first) * self.rows_per_step)
        begin = (step - first) * self.rows_per_step
        return first * self.rows_per_step + order[begin : begin + self.rows_per_step]


@lru_cache(maxsize=4)
def _permutation(seed: int, first: int, count: int) -> np.ndarray:
    # Raw bits of a bit generator: unlike those of Generator's methods, their stream never changes between versions.
    return np.argsort(np.random.Philox(np.random.SeedSequence([seed, first, count])).random_raw(count), kind="stable")


@dataclass(frozen=True)
class RowShare:
    """The rows of one process.

    The rows of a step go to micro-batches first and to processes second, so that another number of processes computes
    the same micro-batches.

    Attributes:
        order: the rows of each step.
        rows_per_device: rows of one micro-batch of one process.
        rank: this process.
        size: number of processes.
    """

    order: RowOrder
    rows_per_device: int
    rank: int = 0
    size: int = 1

    @property
    def micro_batches(self) -> int:
        """Forward passes of each process in a step."""
        return self.order.rows_per_step // (self.rows_per_device * self.size)

    def rows(self, step: int, micro_batch: int) -> list[int]:
        """Row numbers of one micro-batch of step ``step`` (from 0)."""
        first = (micro_batch * self.size + self.rank) * self.rows_per_device
        return self.order.rows(step)[first : first + self.rows_per_device].tolist()


@dataclass(frozen=True)
class StepBatches:
    """What one process feeds its model in one step.

    Attributes:
        batches: the micro-batches.
        counts: what they hold, shape ``(micro_batches, len(Count))``.
    """

    batches: tuple[PackedBatch, ...]
    counts: np.ndarray


def read_rows(dataset: RowSource, rows: Sequence[int]) -> RowBatch:
    """Read rows, in the order given.

    Raises:
        ProxyByteError: naming them, if they cannot be read.
    """
    try:
        return dataset.batch(rows)
    except (OSError, ValueError, IndexError) as error:
        where = f"row(s) {', '.join(map(str, rows))} cannot be read from {dataset.where}"
        raise ProxyByteError(f"{where}: {error}; prepare the data again") from error


def fetch(dataset: RowSource, share: RowShare, step: int) -> StepBatches:
    """Read one step's rows.

    Raises:
        ProxyByteError: naming the rows that cannot be read.
    """
    batches = tuple(collate(read_rows(dataset, share.rows(step, index))) for index in range(share.micro_batches))
    return StepBatches(batches, np.stack([count_batch(batch) for batch in batches]))


def fetch_ahead(dataset: RowSource, share: RowShare, steps: range) -> Iterator[StepBatches]:
    """Batches of ``steps`` in order; the next is read by a thread while the last is trained on."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows") as thread:
        upcoming = [thread.submit(fetch, dataset, share, step) for step in steps[:1]]
        for step in steps:
            current = upcoming.pop()
            if step + 1 in steps:
                upcoming.append(thread.submit(fetch, dataset, share, step + 1))
            yield current.result()
