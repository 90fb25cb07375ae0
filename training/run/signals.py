"""A polite end: SIGTERM and Ctrl-C ask the loop to stop after the step it is in."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class StopRequest:
    """Context in which the first SIGTERM or SIGINT only sets :attr:`made`; a second one acts as it always does."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.made = False
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
        self.made = True
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
