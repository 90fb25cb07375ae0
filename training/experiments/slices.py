"""A slice of time: a plan that runs for so many minutes, then stops as if it had been asked to."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

_LOOK_SECONDS = 0.1


class TimeSlice:
    """Context that sends this process SIGTERM once, when its time is over and a run listens for it.

    A run that listens saves a checkpoint and ends (``training/run/signals.py``). What does not listen, such as the
    scoring of a finished run, is left to end by itself, and no cell is begun after it.

    Args:
        minutes: how long; no limit if absent.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._left = threading.Event()
        self._before: signal._HANDLER = signal.SIG_DFL

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self._end is not None and time.monotonic() >= self._end

    def __enter__(self) -> Self:
        if self._end is not None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._between)
            threading.Thread(target=self._watch, args=(self._end,), name="slice", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._end is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)

    def _between(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM where no run listens: our own came too late and is nothing; another's ends the process."""
        if not self.over:
            sys.exit(128 + number)

    def _watch(self, end: float) -> None:
        if self._left.wait(max(0.0, end - time.monotonic())):
            return
        while not self._left.wait(_LOOK_SECONDS):
            if signal.getsignal(signal.SIGTERM) != self._between:
                with suppress(ProcessLookupError):
                    os.kill(os.getpid(), signal.SIGTERM)
                return
