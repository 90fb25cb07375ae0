"""A progress bar that a log can hold: on a terminal tqdm's own, elsewhere a line every ten seconds."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress(tqdm):
    """``tqdm`` with its arguments; where its stream is no terminal it prints whole lines and moves no cursor."""

    def __init__(self, *args: Any, **settings: Any):
        self._lines = not _is_terminal(settings.get("file") or sys.stderr)
        if self._lines:
            # With ``leave`` an empty line would follow the last.
            settings |= {"mininterval": SECONDS_BETWEEN_LINES, "maxinterval": SECONDS_BETWEEN_LINES, "leave": False}
        super().__init__(*args, **settings)

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """What prints a state of the bar."""
        if _is_terminal(file):
            return tqdm.status_printer(file)

        def line(text: str) -> None:
            if text:
                file.write(f"{text}\n")
                file.flush()

        return line

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Print the state; off a terminal nothing is printed to wipe one out."""
        if self._lines and msg == "":
            return False
        return super().display(msg, pos)

    def clear(self, nolock: bool = False) -> None:
        """Wipe the bar off a terminal."""
        if not self._lines:
            super().clear(nolock=nolock)

    def close(self) -> None:
        """Print how it ended, where it was long enough to be shown at all."""
        if self._lines and not self.disable and self.last_print_t >= self.start_t + self.delay:
            self.display()
        super().close()


def _is_terminal(stream: Any) -> bool:
    return hasattr(stream, "isatty") and stream.isatty()
