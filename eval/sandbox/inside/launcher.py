"""The launcher: builds the walls, starts the untrusted process behind them, waits, and reports; job after job.

Three processes a job with namespaces: a fork of the launcher leaves the caller's namespaces, its child is *init* of the
new process namespace and mounts the little that can be seen, and init's child runs the program. When init ends, for
whatever reason, the kernel kills everything in the namespace. Each dies with its parent, so that nothing outlives the
caller.
"""

import json
import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from . import kernel
from .job import FAILED, LONGEST_MESSAGE, OUT_OF_MEMORY, TIMED_OUT, Job, run_untrusted
from .walls import build_room

_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
)
_LOOK_EVERY = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _OverLimit(Exception):
    """Raised from the timer: the program has run too long, or uses too much memory in all its processes together."""


def main() -> None:
    """For each line of standard input, a job: run it, and write ``{"status", "detail", "seconds"}`` as a line.

    Every job is run by a fresh fork of this process, which itself never runs anything but this module.
    """
    _die_with(int(sys.argv[1]))
    server = os.getpid()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _die_with(server)
            _say(_run(Job.read(line)))
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            _say({"status": "broken", "detail": "the launcher was killed", "seconds": 0.0})


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        kernel.die_with_parent(parent)


def _say(report: dict) -> None:
    os.write(1, json.dumps(report).encode("ascii") + b"\n")


def _run(job: Job) -> dict:
    try:
        return _behind_namespaces(job) if job.namespaces else _watch(job)
    except OSError as error:
        return {"status": "broken", "detail": str(error), "seconds": 0.0}


def _behind_namespaces(job: Job) -> dict:
    _leave_namespaces(job.user)
    read_end, write_end = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(read_end)
        _be_init(job, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read()
    os.waitpid(init, 0)
    return json.loads(text) if text else {"status": "broken", "detail": "init ended without a word", "seconds": 0.0}


def _leave_namespaces(user: int) -> None:
    """New namespaces, in which this user is ``user`` of the old ones, and nobody else exists.

    A process in a new user namespace may not write its own map where ``user`` is another than its own: a child that
    stayed behind does.
    """
    read_end, write_end = os.pipe()
    parent = os.getpid()
    helper = os.fork()
    if helper == 0:
        os.close(write_end)
        os.read(read_end, 1)
        group = user if os.getuid() == 0 else os.getgid()
        maps = {"setgroups": "deny", "gid_map": f"{user} {group} 1", "uid_map": f"{user} {user} 1"}
        try:
            for name, text in maps.items():
                with open(f"/proc/{parent}/{name}", "w") as file:
                    file.write(text)
        except OSError:
            os._exit(1)
        os._exit(0)
    os.close(read_end)
    try:
        kernel.unshare(_NAMESPACES)
    finally:
        os.write(write_end, b".")
        os.close(write_end)
        mapped = os.waitpid(helper, 0)[1] == 0
    if not mapped:
        raise OSError(1, "user namespace: the map of users cannot be written")


def _be_init(job: Job, report: int) -> NoReturn:
    try:
        build_room(job)
        kernel.die_with_parent(0)  # after the change of user, which would undo it; a parent outside has number 0
        result = _watch(job)
    except OSError as error:
        result = {"status": "broken", "detail": str(error), "seconds": 0.0}
    os.write(report, json.dumps(result).encode("ascii"))
    os._exit(0)


def _watch(job: Job) -> dict:
    """Start the program, wait until it ends or breaks a limit, and kill what it left."""
    read_end, write_end = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        run_untrusted(job, write_end)
    os.close(write_end)
    try:
        _arm_timer(job, started + job.wall_seconds)
        ending, cpu_seconds = _wait_for(child)
        signal.setitimer(signal.ITIMER_REAL, 0)
        result = _verdict(read_end, ending, cpu_seconds > 0.9 * job.cpu_seconds)
    except _OverLimit as over:
        signal.setitimer(signal.ITIMER_REAL, 0)
        result = {"status": over.args[0], "detail": over.args[1]}
    if not job.namespaces:
        _kill_group(child)
    return {**result, "seconds": round(time.monotonic() - started, 4)}


def _arm_timer(job: Job, deadline: float) -> None:
    def look(_signal: int, _frame: FrameType | None) -> None:
        if time.monotonic() >= deadline:
            raise _OverLimit(TIMED_OUT, f"ran longer than {job.wall_seconds:g} s")
        if job.namespaces and _resident_bytes() > job.memory_bytes:
            raise _OverLimit(OUT_OF_MEMORY, "its processes together hold more than the limit")

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_EVERY, _LOOK_EVERY)


def _resident_bytes() -> int:
    """Memory of every process in this namespace; pages that they share count once for each."""
    pages = 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and name != "1":
            try:
                with open(f"/proc/{name}/statm") as file:
                    pages += int(file.read().split()[1])
            except (OSError, IndexError):  # it has ended
                continue
    return pages * _PAGE


def _wait_for(child: int) -> tuple[int, float]:
    """Wait status and processor seconds of ``child``; orphans that fall to this process are buried on the way."""
    while True:
        ended, status, used = os.wait4(-1, 0)
        if ended == child:
            return status, used.ru_utime + used.ru_stime


def _verdict(read_end: int, ending: int, spent: bool) -> dict:
    os.set_blocking(read_end, False)
    try:
        message = os.read(read_end, LONGEST_MESSAGE)
    except BlockingIOError:  # nothing was sent, and a process that it left holds the pipe open
        message = b""
    try:
        found = json.loads(message)
        return {"status": str(found["status"]), "detail": str(found["detail"])}
    except (ValueError, KeyError, TypeError):
        pass
    if os.WIFSIGNALED(ending):
        if spent or os.WTERMSIG(ending) == signal.SIGXCPU:
            return {"status": TIMED_OUT, "detail": "used up its processor time"}
        return {"status": FAILED, "detail": f"ended by signal {signal.Signals(os.WTERMSIG(ending)).name}"}
    return {"status": FAILED, "detail": "left before its tests had ended"}


def _kill_group(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(-1, os.WNOHANG)
    except (ProcessLookupError, PermissionError, ChildProcessError):
        return
