"""Preparing with the processes of a launcher, each on its own device: what they tell each other is that they are there.

Tasks are a function of the corpus, and a task's file is a function of the task, so that processes need exchange
nothing: each takes its share of the tasks, and the first puts the folder together.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from proxybyte.errors import ProxyByteError
from proxybyte.training.prepare.tasks import ShardTask
from proxybyte.training.prepare.workers import ONE_THREAD
from proxybyte.training.processes import check_launch

_PATIENCE = timedelta(days=30)
"""How long a process waits for the others; the launcher ends all of them when one fails."""


@dataclass(frozen=True)
class Crew:
    """The processes that prepare together, as one of them sees them."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process sets up, talks and finishes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def share(self, tasks: Sequence[ShardTask]) -> list[ShardTask]:
        """This process's tasks: every ``size``-th, from the largest down, so that shares are alike."""
        largest_first = sorted(tasks, key=lambda task: -task.n_bytes)
        return largest_first[self.rank :: self.size] if self.size > 1 else list(tasks)


@contextmanager
def crew(workers: int) -> Iterator[Crew]:
    """Join the launcher's processes, if there are any.

    Args:
        workers: as asked on the command line; under a launcher each of its processes is one worker.

    Raises:
        ProxyByteError: if the launcher was asked for another number of processes than it started, or ``workers`` too
            were asked for.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    check_launch(size)
    if size == 1:
        yield Crew()
        return
    if workers > 1:
        raise ProxyByteError(
            f"--workers {workers} under a launcher of {size} processes: leave it out, they are workers"
        )
    import torch.distributed as dist

    os.environ.update(ONE_THREAD)
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Crew(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
