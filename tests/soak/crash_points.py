"""In a process that is to be killed: where it may die, and which rows it trained on.

Python tells an audit hook of everything that it does to files (open to write, rename, remove, make a folder). They are
counted, those below one folder, over all processes of the command. The number of a step in that count names a moment
of the command's work that is met again however busy the machine is: between two steps of writing a checkpoint, say.
"""

import hashlib
import itertools
import json
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

_OPENED, _TO_WRITE = "open", os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_OTHERS = frozenset(
    {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
)
_COUNT = struct.Struct("q")


def watch(below: str, count: str, die_at: int | None = None, rows: str | None = None) -> None:
    """Count what this process, and those that it forks, do to files.

    Args:
        below: the folder that the files lie in.
        count: a file that holds the count so far, for others to read; it lies elsewhere.
        die_at: the step before which the whole process group is killed (1 is the first).
        rows: a file for a line on each training step: the step, the rank, and a digest of each row's symbols.
    """
    Path(count).write_bytes(_COUNT.pack(0))
    with Path(count).open("r+b") as file:
        shared = mmap.mmap(file.fileno(), _COUNT.size)
    home = os.fsencode(below)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not (event in _OTHERS or (event == _OPENED and isinstance(arguments[2], int) and arguments[2] & _TO_WRITE)):
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsencode(path).startswith(home):
            return
        (number,) = _COUNT.unpack(shared[:])
        shared[:] = _COUNT.pack(number + 1)
        if number + 1 == die_at:
            os.killpg(os.getpgid(0), signal.SIGKILL)

    sys.addaudithook(hook)
    if rows is not None:
        _note_rows(rows)


def read_count(count: Path) -> int:
    """What the file ``count`` of :func:`watch` holds."""
    (number,) = _COUNT.unpack(count.read_bytes())
    return int(number)


def let_clock_jump() -> None:
    """Let the time of day go forth and back by up to three days with each look at it; steady clocks stay steady."""
    real, calls = time.time_ns, itertools.count()

    def time_ns() -> int:
        return real() + (next(calls) % 7 - 3) * 86_400 * 10**9

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


def _note_rows(path: str) -> None:
    """Have each training step write what it trains on, before it does."""
    from proxybyte.training.run import loop

    train_step = loop.train_step

    def noted(engine: Any, batches: Any, step: int, *others: Any) -> Any:
        digests = [hashlib.sha256(row.numpy().tobytes()).hexdigest()[:16] for each in batches for row in each.input_ids]
        line = json.dumps({"step": step, "rank": int(os.environ.get("RANK", "0")), "rows": digests})
        with Path(path).open("a") as file:
            file.write(line + "\n")
        return train_step(engine, batches, step, *others)

    loop.train_step = noted
