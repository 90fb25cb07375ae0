"""Which rows each process takes at each step, and their fetching one step ahead."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from proxybyte.errors import ProxyByteError

from .metrics import count_batch
from .mixed_view import MixedViewDataset, PackedBatch, collate


@dataclass(frozen=True)
class RowShare:
    """The rows of one process: a pure function of the step.

    Rows of a step go to micro-batches first and to processes second, so that micro-batch ``m`` of all processes
    together is a contiguous run of rows, and another number of processes computes the same micro-batches.

    Attributes:
        rows_per_step: rows of a step over all processes.
        rows_per_device: rows of one micro-batch of one process.
        rank: this process.
        size: number of processes.
    """

    rows_per_step: int
    rows_per_device: int
    rank: int = 0
    size: int = 1

    @property
    def micro_batches(self) -> int:
        """Forward passes of each process in a step."""
        return self.rows_per_step // (self.rows_per_device * self.size)

    def rows(self, step: int, micro_batch: int) -> range:
        """Row numbers of one micro-batch of step ``step`` (from 0)."""
        first = step * self.rows_per_step + (micro_batch * self.size + self.rank) * self.rows_per_device
        return range(first, first + self.rows_per_device)


@dataclass(frozen=True)
class StepBatches:
    """What one process feeds its model in one step.

    Attributes:
        batches: the micro-batches.
        counts: what they hold, shape ``(micro_batches, len(Count))``.
    """

    batches: tuple[PackedBatch, ...]
    counts: np.ndarray


def fetch(dataset: MixedViewDataset, share: RowShare, step: int) -> StepBatches:
    """Read one step's rows.

    Raises:
        ProxyByteError: naming the rows that cannot be read.
    """
    batches = []
    for index in range(share.micro_batches):
        rows = share.rows(step, index)
        try:
            batches.append(collate(dataset.batch(rows)))
        except (OSError, ValueError, IndexError) as error:
            where = f"row(s) {rows[0]} to {rows[-1]} (step {step + 1})"
            raise ProxyByteError(
                f"{where} cannot be read from {dataset.split.folder}: {error}; prepare the data again"
            ) from error
    return StepBatches(tuple(batches), np.stack([count_batch(batch) for batch in batches]))


def fetch_ahead(dataset: MixedViewDataset, share: RowShare, steps: range) -> Iterator[StepBatches]:
    """Batches of ``steps`` in order; the next is read by a thread while the last is trained on."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows") as thread:
        upcoming = [thread.submit(fetch, dataset, share, step) for step in steps[:1]]
        for step in steps:
            current = upcoming.pop()
            if step + 1 in steps:
                upcoming.append(thread.submit(fetch, dataset, share, step + 1))
            yield current.result()
