"""The job as the launcher reads it, and the two innermost processes: the tests' and the program's."""

import json
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from . import kernel
from .harness import judge
from .landlock import restrict_files
from .program import serve
from .seccomp import install_filter
from .wire import Channel

SCRATCH = "/tmp"
"""What can be written behind namespaces, the empty folder below it. Packages may be installed below it as well."""
STANDS = b"."
"""Word of a process that has its walls around it."""


@dataclass(frozen=True)
class Job:
    """What to run, behind which walls; fields as in ``Limits`` and ``Launcher`` of the package.

    The tests are no part of it: they never are in a process that the program's is forked from.
    """

    code: str
    namespaces: bool
    filters: bool
    room: str
    read_only: list[str]
    packages: str
    user: int
    wall_seconds: float
    cpu_seconds: int
    memory_bytes: int
    file_bytes: int
    disk_bytes: int
    processes: int

    @property
    def folder(self) -> str:
        """The empty folder, as the program sees it."""
        return f"{SCRATCH}/program" if self.namespaces else self.room

    @classmethod
    def read(cls, text: bytes) -> "Job":
        """The job from JSON."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Pipes:
    """Descriptors of one of the two processes; what it does not use is ``-1``.

    Attributes:
        read_end: messages from the other one.
        write_end: messages to it.
        stands: told once that the walls stand, or why not.
        tests: the tests' source (tests' process alone).
        verdict: what came of them (tests' process alone).
    """

    read_end: int
    write_end: int
    stands: int
    tests: int = -1
    verdict: int = -1


def run_code(job: Job, pipes: Pipes) -> NoReturn:
    """Become the program's process: nothing inherited, limits set, privileges dropped, and the code. Never returns."""
    kept = _enter(job, pipes, lambda: None)
    serve(job.code, job.packages, Channel(kept.read_end, kept.write_end))
    os._exit(0)


def run_tests(job: Job, pipes: Pipes) -> NoReturn:
    """Become the tests' process, behind the same walls and out of the program's reach. Never returns.

    It writes ``{"status": ..., "detail": ...}`` to ``pipes.verdict``.
    """
    kept = _enter(job, pipes, _hide)
    with os.fdopen(kept.tests, "rb") as source:
        tests = source.read().decode("utf-8", "surrogatepass")
    status, detail = judge(tests, job.packages, Channel(kept.read_end, kept.write_end))
    os.write(kept.verdict, json.dumps({"status": status, "detail": detail}).encode("ascii"))
    os._exit(0)


def _hide() -> None:
    """No other process may read this one's memory or take its descriptors; an interrupt is no exception to catch."""
    kernel.hide_memory()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _enter(job: Job, pipes: Pipes, first: Callable[[], None]) -> Pipes:
    """Put up the walls around this process, after ``first``; its pipes under their new numbers."""
    parent = os.getppid()
    try:
        os.setsid()
        pipes = _close_all_but(pipes)
        os.chdir(job.folder)
        _set_limits(job)
        first()
        if job.namespaces or job.filters:
            kernel.drop_capabilities()
        if job.filters and not job.namespaces:
            kernel.die_with_parent(parent)  # after the change of capabilities, which would undo it
            restrict_files(job.read_only, [job.room, "/dev/null"])
        if job.filters:
            install_filter(single_process=not job.namespaces)
    except Exception as error:  # the launcher says what went wrong, whatever it was
        os.write(pipes.stands, f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
        os._exit(1)
    os.write(pipes.stands, STANDS)
    os.close(pipes.stands)
    return pipes


def _close_all_but(pipes: Pipes) -> Pipes:
    """Standard streams at the null device, the pipes from 3 on and nothing else open."""
    null = os.open(os.devnull, os.O_RDWR)
    # First out of the way, so that no number is taken before it has been copied.
    high = {name: os.dup2(old, 100 + place) for place, (name, old) in enumerate(vars(pipes).items()) if old >= 0}
    for stream in range(3):
        os.dup2(null, stream)
    low = {name: os.dup2(old, 3 + place) for place, (name, old) in enumerate(high.items())}
    os.closerange(3 + len(low), 65536)
    return Pipes(**low)


def _set_limits(job: Job) -> None:
    limits = {
        resource.RLIMIT_AS: job.memory_bytes,
        resource.RLIMIT_FSIZE: job.file_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        # The launcher's init and the tests' process are two of the user's processes.
        resource.RLIMIT_NPROC: job.processes + 2,
    }
    # The signal at the first tells why it ended; who ignores it is killed at the second.
    _limit(resource.RLIMIT_CPU, job.cpu_seconds, job.cpu_seconds + 1)
    for name, value in limits.items():
        _limit(name, value, value)


def _limit(name: int, soft: int, hard: int) -> None:
    allowed = resource.getrlimit(name)[1]
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(name, (soft, hard))
