"""What a run is given, and what came of it."""

from dataclasses import dataclass
from enum import StrEnum

from proxybyte.errors import ProxyByteError

LONGEST_RUN = 1_000_000
"""Seconds that a program may run, at most."""
_MOST_BYTES = 1 << 50
_MOST = {
    "wall_seconds": LONGEST_RUN,
    "cpu_seconds": LONGEST_RUN,
    "memory_bytes": _MOST_BYTES,
    "file_bytes": _MOST_BYTES,
    "disk_bytes": _MOST_BYTES,
    "processes": 1 << 20,
}


class Wall(StrEnum):
    """What stands between untrusted code and the machine, the strongest first."""

    NAMESPACES = "namespaces"
    """Linux namespaces (user, mount, process, network, IPC, host name), no capabilities, a system call filter."""
    FILTERS = "filters"
    """Landlock and a system call filter: one process, no sockets, no signals, files by list."""
    LIMITS = "limits"
    """Resource limits alone: the code can read what you can, and use the network."""


class Status(StrEnum):
    """How a program ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        wall_seconds: from its start to its end.
        cpu_seconds: processor time of a process.
        memory_bytes: address space of each process, and resident memory of all together.
        file_bytes: length of any file.
        disk_bytes: all files together (with :attr:`Wall.NAMESPACES` only; they are kept in memory).
        processes: processes and threads alive at once (with :attr:`Wall.FILTERS` there is one process).
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 10
    memory_bytes: int = 2 << 30
    file_bytes: int = 16 << 20
    disk_bytes: int = 64 << 20
    processes: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ProxyByteError(f"sandbox: {name} must be above 0, not {value}")
            if value > _MOST[name]:
                raise ProxyByteError(f"sandbox: {name} must be at most {_MOST[name]:,}, not {value}")


@dataclass(frozen=True)
class Trial:
    """Code that nobody has read, and tests of it.

    Attributes:
        code: the source to try.
        tests: source that raises unless the code is right; it imports what it asks for from the module ``program``
            (``from program import answer``). It runs in another process than the code.
    """

    code: str
    tests: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of one program.

    Attributes:
        status: how it ended; anything but ``PASSED`` counts as failed.
        detail: the exception's last line, or which limit was broken; a few hundred characters at most.
        seconds: wall-clock time from its start.
    """

    status: Status
    detail: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether code and tests ran to their ends without an exception."""
        return self.status is Status.PASSED
