"""Claims: which process works on what, among processes and machines that share one folder.

A claim is a file ``NAME.claim-0001`` that is made only if it is not there (``O_EXCL``), so that one of many gets it.
Its owner renews the file's time while it lives. A claim is stale whose owner is dead or, on another machine, has not
renewed it for ten minutes; whoever takes over makes ``NAME.claim-0002``. The highest number holds. Nothing that another
process may have made is ever removed or renamed, so two that take over at once cannot both succeed.

That an owner is dead is known only where its process number means something: on its own machine since the same boot,
and in the same process namespace, since containers may share a host's name and number their processes alike.
"""

import functools
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

log = logging.getLogger(__name__)

RENEW_SECONDS = 30.0
STALE_SECONDS = 600.0


@contextmanager
def claim(target: Path) -> Iterator[bool]:
    """Hold the claim on ``target`` inside the block, if it can be had.

    Args:
        target: what is worked on; the claim files lie beside it.

    Yields:
        Whether this process holds it; ``False`` where another does.
    """
    path = _take(target)
    if path is None:
        yield False
        return
    done = threading.Event()
    thread = threading.Thread(target=_renew, args=(path, done), daemon=True, name="claim")
    thread.start()
    try:
        yield True
    finally:
        done.set()
        thread.join()
        path.unlink(missing_ok=True)


def wait_for_claim(target: Path, seconds: float = 1.0) -> None:
    """Until nobody holds the claim on ``target``."""
    told = False
    while (held := _newest(target)) is not None and not _stale(held):
        if not told:
            log.info("waiting for the process that makes %s", target)
        told = True
        time.sleep(seconds)


def _take(target: Path) -> Path | None:
    newest = _newest(target)
    if newest is not None and not _stale(newest):
        return None
    number = int(newest.name.rpartition("-")[2]) + 1 if newest else 1
    path = target.with_name(f"{target.name}.claim-{number:04d}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return None
    owner = {"host": process_space(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    with os.fdopen(handle, "w") as file:
        json.dump(owner, file)
    return path


def _newest(target: Path) -> Path | None:
    """The claim file of the highest number."""
    return max(target.parent.glob(f"{target.name}.claim-*"), default=None)


def _stale(path: Path) -> bool:
    """Whether the owner is dead (known on its own machine) or has been silent for long."""
    try:
        silent = _file_system_time(path.parent) - path.stat().st_mtime
        owner = json.loads(path.read_text())
    except FileNotFoundError:
        return True
    except ValueError:  # made this instant, or its maker died in between
        return silent > RENEW_SECONDS
    if owner["host"] == process_space():  # a stopped process is silent too, but may go on
        return not _alive(owner["pid"], owner["started"])
    return silent > STALE_SECONDS


@functools.cache
def process_space() -> str:
    """Where a process number means something: host, boot and process namespace, as far as the system tells them."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return " ".join(parts)


def _alive(pid: int, started: float) -> bool:
    """Whether the process ``pid`` is there, has not ended unnoticed by its parent, and is the one that started then."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 1.0
    except psutil.NoSuchProcess:
        return False


def _file_system_time(folder: Path) -> float:
    """Now, by the clock of the machine that keeps the files: other machines' clocks may differ."""
    probe = folder / f".clock-{uuid.uuid4().hex}"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now


def _renew(path: Path, done: threading.Event) -> None:
    while not done.wait(RENEW_SECONDS):
        with suppress(FileNotFoundError):
            os.utime(path)
