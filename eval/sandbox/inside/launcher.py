"""The launcher: builds the walls, starts tests and program behind them, waits, and reports; job after job.

A fork of the launcher leaves the caller's namespaces, where there are to be any, and its child is *init* of the new
process namespace and mounts the little that can be seen. Below it run two processes: the tests', which gives the
verdict, and the program's, which holds no descriptor but the two over which it answers the tests. When init ends, for
whatever reason, the kernel kills everything in the namespace. Each dies with its parent, so that nothing outlives the
caller.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from . import kernel
from .harness import LEFT
from .job import STANDS, Job, Pipes, run_code, run_tests
from .program import FAILED, OUT_OF_MEMORY, TIMED_OUT
from .walls import build_room
from .wire import read_exactly

HEADER = 16
"""Bytes before a job: the lengths of its JSON and of its tests, eight each."""
READY = b"ready\n"
_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
)
_LOOK_EVERY = 0.05
_LAST_WORD = 1.0
"""Seconds for a process to end, or to speak, once the other one has."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _CannotBuild(Exception):
    """A wall does not stand; the kernel's reason."""


def main() -> None:
    """For each job on standard input: run it, and write ``{"status", "detail", "seconds"}`` as a line.

    Every job is run by a fresh fork of this process, made before the tests are read: so they never were in the memory
    of a process from which the program's is forked.
    """
    _die_with(int(sys.argv[1]))
    os.write(1, READY)
    server = os.getpid()
    while len(header := read_exactly(0, HEADER)) == HEADER:
        job = read_exactly(0, int.from_bytes(header[:8], "big"))
        tests_read, tests_write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(tests_write)
            _die_with(server)
            _say(_run(Job.read(job), tests_read))
            os._exit(0)
        os.close(tests_read)
        _pass_on(int.from_bytes(header[8:], "big"), tests_write)
        if os.waitpid(child, 0)[1] != 0:
            _say(_verdict(FAILED, "the process that watched it was killed"))


def _pass_on(size: int, write_end: int) -> None:
    """``size`` bytes of standard input to a pipe; where nobody reads it they are dropped."""
    wanted = True
    while size and (part := os.read(0, min(size, 1 << 16))):
        size -= len(part)
        try:
            while wanted and part:
                part = part[os.write(write_end, part) :]
        except BrokenPipeError:
            wanted = False
    os.close(write_end)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        kernel.die_with_parent(parent)


def _say(report: dict) -> None:
    os.write(1, json.dumps(report).encode("ascii") + b"\n")


def _verdict(status: str, detail: str, seconds: float = 0.0) -> dict:
    return {"status": status, "detail": detail, "seconds": seconds}


def _run(job: Job, tests: int) -> dict:
    try:
        return _behind_namespaces(job, tests) if job.namespaces else _watch(job, tests)
    except (_CannotBuild, OSError) as error:
        return _broken(error)


def _broken(error: Exception) -> dict:
    return _verdict("broken", str(error))


def _behind_namespaces(job: Job, tests: int) -> dict:
    _leave_namespaces(job.user)
    read_end, write_end = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(read_end)
        _be_init(job, tests, write_end)
    os.close(write_end)
    os.close(tests)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read()
    os.waitpid(init, 0)
    return json.loads(text) if text else _verdict(FAILED, "the process that watched it was killed")


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


def _be_init(job: Job, tests: int, report: int) -> NoReturn:
    try:
        build_room(job)
        kernel.die_with_parent(0)  # after the change of user, which would undo it; a parent outside has number 0
        result = _watch(job, tests)
    except (_CannotBuild, OSError) as error:
        result = _broken(error)
    os.write(report, json.dumps(result).encode("ascii"))
    os._exit(0)


def _watch(job: Job, tests: int) -> dict:
    """Start both processes, wait for the verdict or a broken limit, and kill what they left.

    Raises:
        _CannotBuild: if a wall does not stand; the program has not run then.
    """
    started = time.monotonic()
    pair = _start(job, tests)
    try:
        status, detail = _wait(job, pair, started + job.wall_seconds)
    finally:
        pair.end()
    return _verdict(status, detail, round(time.monotonic() - started, 4))


@dataclass
class _Child:
    """A process of ours, and how it ended once it has."""

    pid: int
    ending: int | None = None
    cpu_seconds: float = 0.0

    def end(self) -> None:
        """Kill it with its group, and bury it."""
        if self.ending is None:
            for kill in (os.kill, os.killpg):  # it has no group of its own yet, where it was too slow to make one
                try:
                    kill(self.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue
        else:
            _kill_group(self.pid)


@dataclass
class _Pair:
    """The tests' process and the program's."""

    tests: _Child
    program: _Child
    verdict: int

    def bury(self, options: int) -> bool:
        """Take note of a child that has ended, orphans that fell to this process too; whether there was one."""
        try:
            ended, ending, used = os.wait4(-1, options)
        except ChildProcessError:
            return False
        for child in (self.tests, self.program):
            if child.pid == ended:
                child.ending, child.cpu_seconds = ending, used.ru_utime + used.ru_stime
        return ended != 0

    def end(self) -> None:
        """Kill both, and wait until they are gone."""
        self.program.end()
        self.tests.end()
        while self.tests.ending is None or self.program.ending is None:
            self.bury(0)


def _start(job: Job, tests: int) -> _Pair:
    """Both processes; the program's is made when the walls of the other one stand, and cannot keep them from it."""
    to_tests, to_program, verdict = os.pipe(), os.pipe(), os.pipe()
    harness = _start_one(job, run_tests, Pipes(to_tests[0], to_program[1], -1, tests, verdict[1]))
    try:
        program = _start_one(job, run_code, Pipes(to_program[0], to_tests[1], -1))
    except _CannotBuild:
        harness.end()
        raise
    for descriptor in (*to_tests, *to_program, verdict[1], tests):
        os.close(descriptor)
    return _Pair(harness, program, verdict[0])


def _start_one(job: Job, become: Callable[[Job, Pipes], NoReturn], pipes: Pipes) -> _Child:
    """A process whose walls stand.

    Raises:
        _CannotBuild: if they do not.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(job, replace(pipes, stands=write_end))
        finally:  # whatever is raised in there, nothing of the launcher's runs in that process
            os._exit(1)
    os.close(write_end)
    said = read_exactly(read_end, 4096)
    os.close(read_end)
    if said != STANDS:
        os.waitpid(pid, 0)
        raise _CannotBuild(said.decode("utf-8", "replace") or "a process ended before its walls stood")
    return _Child(pid)


def _wait(job: Job, pair: _Pair, deadline: float) -> tuple[str, str]:
    """Status and detail: the tests' own word, or what kept them from giving it."""
    while True:
        if select.select([pair.verdict], [], [], min(_LOOK_EVERY, max(0.0, deadline - time.monotonic())))[0]:
            return _judged(job, pair)
        while pair.bury(os.WNOHANG):
            pass
        if time.monotonic() >= deadline:
            return TIMED_OUT, f"ran longer than {job.wall_seconds:g} s"
        if job.namespaces and _resident_bytes() > job.memory_bytes:
            return OUT_OF_MEMORY, "its processes together hold more than the limit"
        if pair.program.ending is not None and not select.select([pair.verdict], [], [], _LAST_WORD)[0]:
            # A process that it left holds the channel open, and the tests wait for it.
            return _ending_of(pair.program, job)


def _judged(job: Job, pair: _Pair) -> tuple[str, str]:
    text = os.read(pair.verdict, 1 << 16)
    if not text:
        until = time.monotonic() + _LAST_WORD
        while pair.tests.ending is None and time.monotonic() < until:
            if not pair.bury(os.WNOHANG):
                time.sleep(0.001)
        if pair.tests.ending is not None and _spent(pair.tests, job):
            return TIMED_OUT, "used up its processor time"
        return FAILED, "its tests were killed"
    found = json.loads(text)
    if found["status"] != LEFT:
        return found["status"], found["detail"]
    until = time.monotonic() + _LAST_WORD
    while pair.program.ending is None and time.monotonic() < until:
        if not pair.bury(os.WNOHANG):
            time.sleep(0.001)
    return _ending_of(pair.program, job)


def _ending_of(program: _Child, job: Job) -> tuple[str, str]:
    if program.ending is not None and os.WIFSIGNALED(program.ending):
        if _spent(program, job):
            return TIMED_OUT, "used up its processor time"
        number = os.WTERMSIG(program.ending)
        known = [member.name for member in signal.Signals if member == number]
        return FAILED, f"ended by signal {known[0] if known else number}"  # real-time signals have no name
    return FAILED, "left before its tests had ended"


def _spent(child: _Child, job: Job) -> bool:
    by_signal = child.ending is not None and os.WIFSIGNALED(child.ending)
    return by_signal and (os.WTERMSIG(child.ending or 0) == signal.SIGXCPU or child.cpu_seconds > 0.9 * job.cpu_seconds)


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


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
