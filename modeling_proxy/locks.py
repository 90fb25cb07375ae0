"""One process at a time in an output: the lock that every command holds on what it writes, with its owner named.

The lock on ``runs/a`` is the file ``runs/.a.lock``, held by :mod:`filelock` (``flock``) and removed when it is let go.
A process that dies lets go of it, whatever it died of; the file that it leaves is taken over by the next. The owner
(its process, host, command, and since when) is written into the file. No model needs this module, so it does not
travel to the Hub.
"""

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import ProxyByteError
from .faults import faults_named

_ATTEMPTS = 5
"""How often to look again where a lock was let go in the very moment that it was asked for."""
_SHOWN_WORDS = 6


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        pid: the process.
        host: where it runs.
        command: the first words of its command line.
        since: when it took the lock, local time.
    """

    pid: int
    host: str
    command: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command!r}, since {self.since})"


class HeldError(ProxyByteError):
    """Another process works on the output.

    Attributes:
        target: which output.
        owner: which process, where its lock says so.
    """

    def __init__(self, target: Path, owner: Owner | None):
        super().__init__(
            f"{target} is being written by {owner or 'another process'}: wait until it has ended, or name another "
            "output"
        )
        self.target, self.owner = target, owner


@dataclass
class _Held:
    lock: FileLock
    pid: int
    thread: int
    depth: int = 1


_held: dict[Path, _Held] = {}
_guard = threading.Lock()


def lock_path(target: Path) -> Path:
    """The file that is locked for ``target``: hidden, beside it, the same by whatever links it is reached."""
    target = target.resolve()
    return target.with_name(f".{target.name}.lock")


@contextmanager
def hold(target: Path, again: bool = True) -> Iterator[None]:
    """Hold the lock on ``target`` (a file or folder, there or not) inside the block.

    Args:
        target: the output.
        again: a thread that holds it already holds it on; otherwise it is refused like any other.

    Raises:
        HeldError: if another process, or another thread of this one, holds it; the message names it.
        OSError: if the folder that ``target`` lies in cannot be made or written.
    """
    path = lock_path(target)
    made = _make_parents(path.parent)
    try:
        _take(path, target, again)
        try:
            yield
        finally:
            _let_go(path)
    finally:
        for folder in made:  # those that the work inside did not use
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def hold_if_free(target: Path) -> Iterator[bool]:
    """:func:`hold` for those that do something else meanwhile: yields whether this process holds the lock."""
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(target))
            mine = True
        except HeldError:
            mine = False
        yield mine


def owner_of(target: Path) -> Owner | None:
    """Who holds the lock on ``target``; ``None`` where nobody does, or the holder has not said yet."""
    path = lock_path(target)
    if not path.exists():
        return None
    probe = FileLock(path, timeout=0)
    try:
        with probe:
            return None
    except Timeout:
        return _read_owner(path)


def refuse_if_held(target: Path) -> None:
    """Go on only where no other process holds the lock on ``target``.

    Raises:
        HeldError: if one does; the message names it.
    """
    for _ in range(_ATTEMPTS):  # one that looks, as this one does, holds it for a moment
        owner = owner_of(target)
        if owner is None or (owner.pid == os.getpid() and owner.host == socket.gethostname()):
            return
        time.sleep(0.05)
    raise HeldError(target, owner)


def wait_until_free(target: Path, seconds: float = 1.0) -> None:
    """Until nobody holds the lock on ``target``, looking every so many seconds."""
    path = lock_path(target)
    while path.exists():
        try:
            with FileLock(path, timeout=0):
                return
        except Timeout:
            time.sleep(seconds)


def _take(path: Path, target: Path, again: bool) -> None:
    with _guard:
        mine = _held.get(path)
        if mine is not None and mine.pid == os.getpid():
            if mine.thread != threading.get_ident() or not again:
                raise HeldError(target, _read_owner(path))
            mine.depth += 1
            return
        lock = FileLock(path, timeout=0)
        for attempt in range(_ATTEMPTS):
            try:
                lock.acquire()
                break
            except Timeout:
                owner = _read_owner(path)
                if attempt + 1 == _ATTEMPTS or owner is not None:
                    raise HeldError(target, owner) from None
                time.sleep(0.05)  # it was let go this instant, or its owner has not written its name yet
        try:
            with faults_named(path):
                path.write_text(json.dumps(asdict(_this_process())), encoding="utf-8")
        except OSError:
            path.unlink(missing_ok=True)
            lock.release()
            raise
        _held[path] = _Held(lock, os.getpid(), threading.get_ident())


def _let_go(path: Path) -> None:
    with _guard:
        mine = _held[path]
        mine.depth -= 1
        if mine.depth == 0:
            del _held[path]
            path.unlink(missing_ok=True)  # while it is held: filelock takes no lock on a file without a name
            mine.lock.release()


def _make_parents(folder: Path) -> list[Path]:
    """Make ``folder``; those that were not there, the innermost first."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _this_process() -> Owner:
    words = [Path(sys.argv[0]).name, *sys.argv[1:_SHOWN_WORDS]]
    return Owner(os.getpid(), socket.gethostname(), " ".join(words), time.strftime("%Y-%m-%d %H:%M:%S"))


def _read_owner(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
