"""Which of several processes has stopped answering.

Processes that compute together wait for each other in every step. When one hangs (stopped, its machine gone, stuck in
a driver) the others wait in silence, and what their library says at last is the name of one that waited. So each
process gives a sign of life every few seconds through the job's key-value store, from a thread, and looks at those of
the others: the one that gives none is named, and the job ends. How long a step takes does not matter.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

DEFAULT_SECONDS = 600.0
_EVERY_SECONDS = 5.0
_ENDED = "ended"


@contextmanager
def signs_of_life(rank: int, size: int, seconds: float = DEFAULT_SECONDS) -> Iterator[None]:
    """Give signs of life inside the block, and end this process (exit code 2, one sentence) where another gives none.

    Args:
        rank: of this process.
        size: number of processes; of one, nothing is done.
        seconds: how long another may be silent.
    """
    if size == 1:
        yield
        return
    watch = _Watch(rank, size, seconds)
    watch.start()
    try:
        yield
    finally:
        watch.end()


class _Watch(threading.Thread):
    def __init__(self, rank: int, size: int, seconds: float):
        super().__init__(daemon=True, name="signs-of-life")
        from torch.distributed import TCPStore

        self.rank, self.size, self.seconds = rank, size, seconds
        self._done = threading.Event()
        # A connection of its own: the job's may be held by a process that waits for the others.
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = TCPStore(*address, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=seconds))
        self._store.set(_key("who", rank), f"process {rank} of {size} (pid {os.getpid()} on {socket.gethostname()})")

    def run(self) -> None:
        """Until :meth:`end`."""
        seen: dict[int, tuple[bytes, float]] = {}
        count = 0
        while not self._done.is_set():
            count += 1
            asked = time.monotonic()
            try:
                self._store.set(_key("alive", self.rank), str(count))
                for fellow in range(self.size):
                    if fellow != self.rank:
                        self._look_at(fellow, seen)
            except RuntimeError:
                if time.monotonic() - asked >= 0.9 * self.seconds:
                    self._end_all(
                        f"the process that holds the meeting point of all {self.size}, number 0 or the launcher"
                    )
                return  # its connections are closed: the job is ending
            self._done.wait(min(_EVERY_SECONDS, self.seconds / 4))

    def _look_at(self, fellow: int, seen: dict[int, tuple[bytes, float]]) -> None:
        now, key = time.monotonic(), _key("alive", fellow)
        sign = self._store.get(key) if self._store.check([key]) else b""
        if fellow not in seen or seen[fellow][0] != sign:
            seen[fellow] = sign, now
        elif sign != _ENDED.encode() and now - seen[fellow][1] > self.seconds:
            who = _key("who", fellow)
            self._end_all(self._store.get(who).decode() if self._store.check([who]) else f"process {fellow}")

    def _end_all(self, who: str) -> None:
        if self._done.is_set():
            return
        print(
            f"proxybyte: {who} has given no sign of life for {self.seconds:.0f} s: all end here, and the same command "
            "goes on from what was saved",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)  # the main thread waits for that process, for ever

    def end(self) -> None:
        """Say that this process has nothing more to do with the others."""
        self._done.set()
        with suppress(RuntimeError):
            self._store.set(_key("alive", self.rank), _ENDED)
        self.join(1.0)


def _key(what: str, rank: int) -> str:
    return f"proxybyte/{what}/{rank}"
