"""Starts commands in forks of ``command_server.py``, which has imported everything once."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Forked:
    """A process that :class:`CommandServer` started, with the methods of ``subprocess.Popen``.

    Attributes:
        pid: its number.
        folder: of what it says, and of ``rankN`` with the number of each process of a launch.
    """

    def __init__(self, pid: int, folder: Path):
        self.pid, self.folder = pid, folder

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that killed it; ``None`` while it runs."""
        code = self.folder / "code"
        return int(code.read_text()) if code.exists() else None

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """The same, once it has ended."""
        deadline = time.monotonic() + timeout
        while (code := self.returncode) is None:
            assert time.monotonic() < deadline, f"process {self.pid} does not end: {self.said()}"
            time.sleep(0.005)
        return code

    def communicated(self) -> tuple[str, str]:
        """What it has said so far, on stdout and on stderr."""
        errors = self.folder / "errors"
        return (self.folder / "log").read_text(), errors.read_text() if errors.exists() else ""

    def said(self) -> str:
        """The end of what it has said so far."""
        return "".join(self.communicated())[-600:]

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """All that it said."""
        self.wait(timeout)
        return self.communicated()

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """By SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """By SIGTERM."""
        self.send_signal(signal.SIGTERM)


class CommandServer:
    """``command_server.py``: processes of their own that need not import anything again."""

    def __init__(self, folder: Path):
        self._folders = (folder / f"process{number}" for number in itertools.count())
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, str(Path(__file__).parent.parent / "command_server.py")]
        self._process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fork(self, words: Sequence[object], errors: bool = True, **how: Any) -> Forked:
        """Start ``proxybyte`` with ``words``; ``how`` as the server's text says, stderr apart with ``errors``."""
        folder = next(self._folders)
        folder.mkdir()
        order = {"words": [*map(str, words)], "log": str(folder / "log"), "code": str(folder / "code"), **how}
        if errors:
            order["errors"] = str(folder / "errors")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()), folder)

    def start(self, words: list[str], **how: Any) -> int:
        """Start it, both streams in one; the number of its process."""
        self._last = self.fork(words, errors=False, **how)
        return self._last.pid

    def ended(self) -> tuple[int, str]:
        """Wait for the last that was started: its exit code, minus the signal that killed it, and what it said."""
        return self._last.wait(), self._last.communicated()[0]

    def run(self, words: list[str], **how: Any) -> tuple[int, str]:
        """Both."""
        self.start(words, **how)
        return self.ended()

    def close(self) -> None:
        """End the server."""
        self._process.stdin.close()
        self._process.wait(timeout=120)
