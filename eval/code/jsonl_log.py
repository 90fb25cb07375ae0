"""A JSONL file that is only ever added to, by one process at a time, and that survives that process being killed."""

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

from proxybyte.faults import faults_named
from proxybyte.locks import hold


class JsonlLog:
    """An open log.

    Attributes:
        content: the bytes it held when it was opened, whole lines alone. A last line that was left half-written is cut
            off when the first row is added: a file that is refused keeps every byte.

    Args:
        path: made if absent, with its folder.

    Raises:
        ProxyByteError: if another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self._lock = ExitStack()
        self._lock.enter_context(hold(path, again=False))
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk did not take is not tried again when the file is closed.
        self._file: IO[bytes] = path.open("a+b", buffering=0)
        self._file.seek(0)
        data = self._file.read()
        self.content = data[: data.rfind(b"\n") + 1]
        self._has_half_a_line = len(data) > len(self.content)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write ``rows``; they are on the disk when this returns.

        Raises:
            OSError: if the disk does not take them all; the message names the file.
        """
        with faults_named(self._path):
            self._add("".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))

    def _add(self, content: bytes) -> None:
        if self._has_half_a_line:
            self._file.truncate(len(self.content))
            self._has_half_a_line = False
        while content:  # a disk that is nearly full takes a part
            content = content[self._file.write(content) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file and let others write it."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
