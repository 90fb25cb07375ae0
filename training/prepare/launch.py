"""Preparing with the processes of a launcher, each on its own device: they tell each other "here" and "failed".

Tasks are a function of the corpus, and a task's file is a function of the task, so that processes need exchange
nothing: each takes its share of the tasks, and the first puts the folder together.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from proxybyte.errors import ProxyByteError
from proxybyte.training.machine import check_launch, end_with_launcher
from proxybyte.training.prepare.tasks import ShardTask
from proxybyte.training.prepare.workers import ONE_THREAD
from proxybyte.training.signs_of_life import signs_of_life

if TYPE_CHECKING:
    from torch.distributed import Store

_PATIENCE = timedelta(days=30)
"""How long a process waits for the others, whose shares may be long; one that fails says so."""
_PARTING_SECONDS = 20.0
"""How long one that failed waits for the others to end too: launchers end all, without a word, when the first ends."""
_FAILED, _ENDED = "prepare/failed", "prepare/ended"


@dataclass(frozen=True)
class Crew:
    """The processes that prepare together, as one of them sees them."""

    rank: int = 0
    size: int = 1
    store: "Store | None" = None

    @property
    def is_first(self) -> bool:
        """Whether this process sets up, talks and finishes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here.

        Raises:
            ProxyByteError: if another process failed, or is gone.
        """
        if self.size > 1:
            import torch.distributed as dist

            try:
                dist.barrier()
            except RuntimeError as error:  # its connections are closed
                raise self._fellow_failed() from error
            self.check()

    def check(self) -> None:
        """Stop where another process has failed; cheap enough to be asked between batches.

        Raises:
            ProxyByteError: if one has.
        """
        try:
            failed = self.store is not None and self.store.check([_FAILED])
        except RuntimeError as error:  # the store went with the process that held it
            raise self._fellow_failed() from error
        if failed:
            raise self._fellow_failed()

    def _fellow_failed(self) -> ProxyByteError:
        return ProxyByteError(
            f"another of the {self.size} processes failed, its own message says why: "
            "finished shards are kept, and the same command goes on from there"
        )

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
            were asked for. What one process raises inside the block ends the others at their next wait or check.
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
    from torch.distributed.rendezvous import rendezvous

    end_with_launcher()
    os.environ.update(ONE_THREAD)
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        with signs_of_life(rank, size):
            yield Crew(rank, size, store)
    except BaseException:
        with suppress(RuntimeError):  # likewise
            store.set(_FAILED, "")
            dist.destroy_process_group()  # those that wait for this process are told by its connections
            _part(store, size)
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _part(store: "Store", size: int) -> None:
    """Wait, not for long, until all processes have ended their work."""
    last = time.monotonic() + _PARTING_SECONDS
    ended = store.add(_ENDED, 1)
    while ended < size and time.monotonic() < last:
        time.sleep(0.1)
        ended = store.add(_ENDED, 0)
