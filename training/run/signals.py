"""A polite end: SIGTERM and Ctrl-C ask the loop to stop after the step it is in."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class StopRequest:
    """Context in which the first SIGTERM or SIGINT only sets :attr:`number`, 0 until then; a second acts as ever."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.number = 0
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        # Python allows handlers in the main thread only; elsewhere the caller has its own way to stop.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
