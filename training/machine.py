"""What a job has of this machine: its memory, and its processes.

How many processes were asked for and run; that none outlives the one that it works for; how one is asked to stop.

A killed process (SIGKILL, the kernel for want of memory) cannot end those that it started, and they would go on beside
the user's next try. So each of them sees to it itself: what we start is ended by the kernel with us, and what a
launcher starts watches the launcher.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self, TypeVar

import psutil

from proxybyte.errors import ProxyByteError

_Work = TypeVar("_Work")
_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.5
_LAUNCHERS = ("accelerate", "torchrun", "torch.distributed")


@dataclass(frozen=True)
class Share:
    """One of ``of`` parts of the work, the ``index``-th, counted from 0: all of it by default."""

    index: int = 0
    of: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def name(self) -> str:
        """For files."""
        return f"shard-{self.index}-of-{self.of}"

    def of_all(self, work: Sequence[_Work]) -> Sequence[_Work]:
        """Every ``of``-th piece of work."""
        return work[self.index :: self.of]


ALL = Share()


def ends_with_this_process(number: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """``preexec_fn`` of a command that is to get the signal ``number`` when this process dies by any cause.

    Linux alone can promise that; elsewhere a command outlives a killed process.
    """
    parent = os.getpid()
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl  # here and not in the child, which must not load anything

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died before the kernel was asked
            os.kill(os.getpid(), number)

    return ask


def end_with_parent(parent: int) -> None:
    """Kill this process when its parent, number ``parent``, dies by any cause; the parent's main thread started it.

    The kernel does it where it can (even a process that holds Python's lock ends then), a thread elsewhere.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return
    _watch(parent)


def end_with_launcher() -> None:
    """Kill this process when the launcher that started it dies; without a launcher, nothing is watched.

    Raises:
        ProxyByteError: if it is dead already.

    By a thread: from which of its threads a launcher starts processes, and whether that one lives on, is not known.
    """
    parent = os.getppid()
    try:
        words = psutil.Process(parent).cmdline()[:4]
    except psutil.Error:
        words = []
    if any(name in word for word in words for name in _LAUNCHERS):
        _watch(parent)
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        if parent == 1 and not _meeting_point_answers():  # the launcher died while this process was loading
            raise ProxyByteError("the launcher of this process is gone: launch again")
        _watch(parent)


def _meeting_point_answers() -> bool:
    with suppress(OSError, ValueError):
        address = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", "0"))
        socket.create_connection(address, timeout=_LOOK_SECONDS * 10).close()
        return True
    return False


def _watch(parent: int) -> None:
    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)

    threading.Thread(target=look, daemon=True, name="watch-parent").start()


def fellow_gone(error: BaseException) -> ProxyByteError | None:
    """What to say where ``error`` is that of a process whose fellow has ended; ``None`` where it is something else."""
    lost = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
    if not isinstance(error, RuntimeError) or not any(word in str(error).lower() for word in lost):
        return None
    return ProxyByteError(
        "another process of this run has ended, and what it said says why: the same command goes on from what was saved"
    )


def asked_processes(environment: Mapping[str, str], parent_command: Sequence[str]) -> int | None:
    """How many processes the launcher was asked for, or ``None`` where it did not say.

    ``accelerate launch --cpu --num_processes 2`` starts one process and leaves no trace in its environment, so the
    launcher's own command line is read too.
    """
    if "WORLD_SIZE" in environment:
        return int(environment["WORLD_SIZE"])
    words = list(parent_command)
    if not any("accelerate" in word for word in words[:4]):
        return None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name.replace("-", "_") == "__num_processes":
            number = value or following
            return int(number) if number.isdigit() else None
    return None


def check_launch(size: int) -> None:
    """Stop where ``size`` processes run and the launcher was asked for another number.

    Raises:
        ProxyByteError: naming both numbers and the way out.
    """
    check_asked(size, asked_processes(os.environ, psutil.Process(os.getppid()).cmdline()), "the launcher was asked for")


def check_asked(size: int, wanted: int | None, who: str) -> None:
    """Stop where ``size`` processes run and ``who`` wanted another number (``None``: no wish).

    Raises:
        ProxyByteError: naming both numbers and the way out.
    """
    if wanted is not None and wanted != size:
        raise ProxyByteError(
            f"{size} process(es) run, but {who} {wanted}: on a CPU launch with 'torchrun --nproc-per-node {wanted}'"
        )


def exit_code(stopped_by: int) -> int:
    """Exit code of a command whose work a signal, if any, stopped after it was saved.

    130 for Ctrl-C, as a shell counts it, so that 'train && export' ends there; a scheduler's SIGTERM is no fault.
    """
    return 128 + signal.SIGINT if stopped_by == signal.SIGINT else 0


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


_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def host_memory() -> int:
    """Bytes of main memory that this process may use at all: the machine's, or a container's limit."""
    total = int(psutil.virtual_memory().total)
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            total = min(total, int(Path(path).read_text()))
    return total


def free_host_memory() -> int:
    """Bytes of main memory that this process could take now: what is available, or left of a container's limit."""
    return min(int(psutil.virtual_memory().available), host_memory())


def refuse_beyond(limit: float, wanted: float, what: str, fix: str) -> None:
    """Stop where ``wanted`` bytes are more than ``limit``.

    Args:
        limit: bytes that there are.
        wanted: bytes that ``what`` takes.
        what: for the message: what it is, and with which settings.
        fix: what to change.

    Raises:
        ProxyByteError: saying both sizes.
    """
    if wanted > limit:
        raise ProxyByteError(
            f"{what} takes {spell_size(wanted)} of memory and this machine has {spell_size(limit)}: {fix}"
        )


def spell_size(count: float) -> str:
    """A number of bytes for people."""
    if count < 1e9:
        return f"{count / 1e6:,.1f} MB"
    return f"{count / 1e9:,.1f} GB" if count < 1e15 else f"{count / 1e9:.1e} GB"
