"""The job as the launcher reads it, and the innermost process: the one in which untrusted code runs."""

import builtins
import json
import os
import resource
import sys
import traceback
import types
from dataclasses import dataclass
from typing import Any

from . import kernel
from .landlock import restrict_files
from .seccomp import install_filter

PASSED, FAILED, TIMED_OUT, OUT_OF_MEMORY = "passed", "failed", "timed out", "out of memory"
LONGEST_MESSAGE = 4096
"""Bytes that the innermost process may send; less than a pipe holds, so that sending never blocks."""
SCRATCH = "/tmp"
"""What can be written behind namespaces, the empty folder below it. Packages may be installed below it as well."""
_LONGEST_DETAIL = 400


@dataclass(frozen=True)
class Job:
    """What to run, behind which walls; fields as in ``Limits`` and ``Sandbox`` of the package."""

    program: str
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
    def read(cls, text: str) -> "Job":
        """The job from JSON."""
        return cls(**json.loads(text))


def run_untrusted(job: Job, report: int) -> None:
    """Become the untrusted process: nothing inherited, limits set, privileges dropped; run the program and exit.

    The message to descriptor ``report`` is ``{"status": ..., "detail": ...}``. Never returns.
    """
    launcher = os.getppid()
    try:
        os.setsid()
        report = _close_all_but(report)
        os.chdir(job.folder)
        _set_limits(job)
        if job.namespaces or job.filters:
            kernel.drop_capabilities()
        if job.filters and not job.namespaces:
            kernel.die_with_parent(launcher)  # after the change of capabilities, which would undo it
            restrict_files(job.read_only, [job.room, "/dev/null"])
        if job.filters:
            install_filter(single_process=not job.namespaces)
    except Exception as error:  # the launcher says what went wrong, whatever it was
        _send(report, "broken", f"{type(error).__name__}: {error}")
        os._exit(1)
    status, detail = _run(job.program, job.packages)
    _send(report, status, detail)
    os._exit(0)


def _run(program: str, packages: str) -> tuple[str, str]:
    """Run ``program`` as a module of its own; ``__name__`` is not ``__main__``, as in HumanEval's own harness."""
    sys.dont_write_bytecode = True
    module = types.ModuleType("program")
    sys.modules["program"] = module
    sys.argv = ["program"]
    sys.path[:] = [*(path for path in sys.path if path.startswith(sys.base_prefix)), packages]
    try:
        # The one place that executes text: running it is what this process exists for.
        builtins.exec(builtins.compile(program, "program.py", "exec"), module.__dict__)
    except MemoryError:
        return OUT_OF_MEMORY, "MemoryError"
    except BaseException as error:  # SystemExit too: a program that leaves has not passed
        try:
            return FAILED, _describe(error)
        except BaseException:  # an exception whose own text raises
            return FAILED, "an exception that cannot be printed"
    return PASSED, ""


def _describe(error: BaseException) -> str:
    line = next((f"line {frame.lineno}, " for frame in _frames(error)), "")
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    return (line + text.splitlines()[-1])[:_LONGEST_DETAIL] if text else line + type(error).__name__


def _frames(error: BaseException) -> Any:
    frames = traceback.extract_tb(error.__traceback__, limit=50)
    return reversed([frame for frame in frames if frame.filename == "program.py"])


def _send(report: int, status: str, detail: str) -> None:
    message = json.dumps({"status": status, "detail": detail}).encode("ascii")
    try:
        os.write(report, message[:LONGEST_MESSAGE])
    except OSError:  # the program closed it; no message counts as failed
        return


def _close_all_but(report: int) -> int:
    """Standard streams at the null device, ``report`` at 3 and nothing else open."""
    null = os.open(os.devnull, os.O_RDWR)
    report = os.dup2(report, 100)
    for stream in range(3):
        os.dup2(null, stream)
    os.dup2(report, 3)
    os.closerange(4, 65536)
    return 3


def _set_limits(job: Job) -> None:
    limits = {
        resource.RLIMIT_AS: job.memory_bytes,
        resource.RLIMIT_FSIZE: job.file_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        # The launcher's init is one of the user's processes.
        resource.RLIMIT_NPROC: job.processes + 1,
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
