"""The filter on system calls is a list of what is let through: all else is refused, and stock programs still run."""

import os
import re
import textwrap
from pathlib import Path

import pytest

from proxybyte.eval.sandbox import Limits, Wall, run_program
from proxybyte.eval.sandbox.inside.calls import ALLOWED, ALLOWED_WITH_NAMESPACES

HEADERS = {
    0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    1: Path("/usr/include/asm-generic/unistd.h"),
}
BY_ARGUMENTS = {"x86_64": {56, 435, 335, 336}, "aarch64": {220, 435}}
"""Clones, judged by their arguments; and two calls for the kernel's own probes, which it lets no filter see and answers
with a signal to whoever else makes them."""
HIGHEST = 600


def run(program: str, wall: Wall):
    return run_program(textwrap.dedent(program), Limits(wall_seconds=20, cpu_seconds=10, processes=8), wall)


def numbers_in(path: Path) -> dict[str, int]:
    """Every call that a kernel's header names; some of aarch64 are named for 32 and 64 bits at once."""
    text = path.read_text()
    found = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)$", text, re.M)}
    aliases = re.findall(r"#define __NR_(\w+) __NR3264_(\w+)$", text, re.M)
    return found | {name: found[other] for name, other in aliases if other in found}


@pytest.mark.parametrize("column", HEADERS, ids=["x86_64", "aarch64"])
def test_the_numbers_are_those_of_the_kernels_headers(column):
    if not HEADERS[column].exists():
        pytest.skip(f"no {HEADERS[column]} here")
    known = numbers_in(HEADERS[column])
    for name, numbers in (ALLOWED | ALLOWED_WITH_NAMESPACES).items():
        assert numbers[column] == known.get(name), name


def test_whatever_is_not_on_the_list_is_refused(wall):
    machine = os.uname().machine
    column = list(BY_ARGUMENTS).index(machine)
    names = ALLOWED | (ALLOWED_WITH_NAMESPACES if wall is Wall.NAMESPACES else {})
    allowed = {numbers[column] for numbers in names.values()} | BY_ARGUMENTS[machine]
    others = [number for number in range(HIGHEST) if number not in allowed]
    assert len(others) > 300
    program = f"""
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        for number in {others}:
            ctypes.set_errno(0)
            assert libc.syscall(number, -1, -1, -1, -1, -1, -1) == -1, number
            assert ctypes.get_errno() in (errno.EPERM, errno.ENOSYS), (number, ctypes.get_errno())
        """
    outcome = run(program, wall)
    assert outcome.passed, outcome


def test_a_pair_of_sockets_reaches_nobody_else(wall):
    program = """
        import socket
        first, second = socket.socketpair()
        first.send(b"hello")
        assert second.recv(9) == b"hello"
        for attempt in (
            lambda: first.sendto(b"x", "\\0outside"),
            lambda: first.sendmsg([b"x"], [], 0, "\\0outside"),
            lambda: first.connect("\\0outside"),
            lambda: first.bind("\\0mine"),
            lambda: first.listen(),
            lambda: socket.socketpair(socket.AF_INET),
            lambda: socket.socket(socket.AF_UNIX),
        ):
            try:
                attempt()
            except PermissionError:
                continue
            raise AssertionError("not refused")
        """
    outcome = run(program, wall)
    assert outcome.passed, outcome


STOCK = {
    "files": """
        import os, pathlib, shutil, tempfile
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "a"
            path.write_text("x" * 10_000)
            shutil.copytree(folder, "copy")
            path.rename(path.with_name("b"))
            os.truncate(path.with_name("b"), 10)
            assert path.with_name("b").stat().st_size == 10 and os.listdir("copy") == ["a"]
            os.symlink("b", path); os.utime(path); os.chmod(path, 0o600)
        shutil.rmtree("copy")
        """,
    "numpy": """
        import numpy as np
        a = np.random.default_rng(0).normal(size=(64, 64))
        assert np.allclose(np.linalg.inv(a) @ a, np.eye(64))
        np.save("a.npy", a)
        assert (np.load("a.npy", mmap_mode="r") == a).all()
        assert np.fft.ifft(np.fft.fft(a)).real.round(6).tolist() == a.round(6).tolist()
        """,
    "threads": """
        import queue, threading
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(lambda x: x * x, range(100))) == 328350
        q = queue.Queue()
        threading.Timer(0.01, q.put, [1]).start()
        assert q.get(timeout=5) == 1
        """,
    "asyncio": """
        import asyncio
        async def later(x):
            await asyncio.sleep(0.01)
            return await asyncio.to_thread(lambda: x + 1)
        async def main():
            return await asyncio.gather(*(later(x) for x in range(5)))
        assert asyncio.run(main()) == [1, 2, 3, 4, 5]
        """,
    "time and signals": """
        import random, secrets, signal, time, uuid
        hits = []
        signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        signal.sigtimedwait([signal.SIGUSR1], 0.1)
        time.sleep(0.05); time.process_time(); time.clock_gettime(time.CLOCK_MONOTONIC)
        assert hits and secrets.token_bytes(4) and uuid.uuid4()
        """,
    "libraries": """
        import bz2, csv, ctypes, decimal, gzip, hashlib, json, lzma, mmap, os, platform, resource, select, selectors
        import sqlite3, statistics, zlib, zipfile
        base = sqlite3.connect("base"); base.execute("create table t (x)"); base.commit(); base.close()
        with mmap.mmap(-1, 4096) as area: area[:2] = b"ab"
        with zipfile.ZipFile("z.zip", "w") as file: file.writestr("a", "b")
        r, w = os.pipe()
        selector = selectors.DefaultSelector(); selector.register(r, selectors.EVENT_READ)
        os.write(w, b"x")
        assert selector.select(1) and select.select([r], [], [], 1)[0]
        assert platform.system() == "Linux" and os.cpu_count() and os.getcwd() and resource.getrusage(0)
        """,
}
SEVERAL = {
    "fork": """
        import os, signal
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        """,
    "multiprocessing": """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        process = context.Process(target=lambda: there.send(42))
        process.start()
        assert here.recv() == 42
        process.join()
        assert process.exitcode == 0
        """,
}


@pytest.mark.parametrize("name", STOCK)
def test_stock_programs_run(wall, name):
    outcome = run(STOCK[name], wall)
    assert outcome.passed, outcome


@pytest.mark.parametrize("name", SEVERAL)
def test_programs_of_several_processes_run_behind_namespaces_alone(wall, name):
    outcome = run(SEVERAL[name], wall)
    assert outcome.passed == (wall is Wall.NAMESPACES), outcome
