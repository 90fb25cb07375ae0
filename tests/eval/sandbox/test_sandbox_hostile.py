"""Programs that want too much or will not end, behind each wall that this machine has; each is bounded by itself."""

import secrets
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from proxybyte.eval.sandbox import Limits, Status, Wall, capabilities, run_program

pytestmark = pytest.mark.skipif(capabilities().wall is Wall.LIMITS, reason="this machine has weak walls only")

TIGHT = Limits(
    wall_seconds=4, cpu_seconds=2, memory_bytes=512 << 20, file_bytes=1 << 20, disk_bytes=4 << 20, processes=8
)


def run(program: str, wall: Wall, limits: Limits = TIGHT):
    return run_program(textwrap.dedent(program), limits, wall)


def test_an_endless_loop_ends_at_its_processor_time(wall):
    outcome = run("while True: pass", wall, Limits(wall_seconds=30, cpu_seconds=1))
    assert outcome.status is Status.TIMED_OUT
    assert "processor time" in outcome.detail


def test_a_sleeper_ends_at_its_wall_time(wall):
    outcome = run("import time; time.sleep(60)", wall, Limits(wall_seconds=1))
    assert outcome.status is Status.TIMED_OUT


def test_a_loop_that_swallows_every_exception_and_signal_ends_too(wall):
    program = """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True:
            try:
                while True: pass
            except BaseException: pass
        """
    assert run(program, wall, Limits(wall_seconds=2, cpu_seconds=1)).status is Status.TIMED_OUT


def test_ten_gigabytes_are_refused(wall):
    assert run("x = bytearray(10 << 30)", wall).status is Status.OUT_OF_MEMORY
    assert run("x = []\nwhile len(x) < 1000: x.append(bytearray(10 << 20))", wall).status is Status.OUT_OF_MEMORY


def test_memory_counts_over_all_processes_together(wall):
    program = """
        import os, time
        for number in range(4):
            if os.fork() == 0: break
        x = bytearray(200 << 20)
        time.sleep(20)
        """
    outcome = run(program, wall)
    assert outcome.status is (Status.OUT_OF_MEMORY if wall is Wall.NAMESPACES else Status.FAILED)


def test_a_fork_bomb_meets_the_limit_of_processes(wall):
    program = """
        import os
        started = 0
        try:
            while started < 200:
                if os.fork() == 0:
                    import time; time.sleep(20); os._exit(0)
                started += 1
        except OSError as error:
            assert started < 8, started
            raise SystemExit(f"refused after {started}")
        """
    outcome = run(program, wall)
    assert outcome.status is Status.FAILED
    assert "refused after" in outcome.detail


def test_a_fork_bomb_whose_children_fork_on_ends_with_its_time(wall):
    program = """
        import os, time
        deadline = time.time() + 20
        for _ in range(100):
            try: os.fork()
            except OSError: pass
        while time.time() < deadline: time.sleep(0.1)
        """
    assert run(program, wall, Limits(wall_seconds=1, processes=8)).status is Status.TIMED_OUT


def test_a_thread_bomb_meets_a_limit(wall):
    program = """
        import threading, time
        for _ in range(2000):
            threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        """
    outcome = run(program, wall)
    assert outcome.status is Status.FAILED
    assert "can't start new thread" in outcome.detail


def test_no_daemon_outlives_its_program(wall):
    marker = f"left-over-{secrets.token_hex(8)}"
    program = f"""
        import ctypes, os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                ctypes.CDLL(None).prctl(15, b"{marker[:15]}", 0, 0, 0)
                time.sleep(30)
                os._exit(0)
            os._exit(0)
        os.wait()
        """
    outcome = run(program, wall)
    assert outcome.passed == (wall is Wall.NAMESPACES)
    assert not [p for p in psutil.process_iter(["name"]) if p.info["name"] == marker[:15]]


def test_on_time_out_all_its_processes_end_with_it(wall):
    """Children, one of them in a session of its own, that swallow every signal they can."""
    marker = f"hold-{secrets.token_hex(4)}"
    program = f"""
        import ctypes, os, signal, time
        for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
        try:
            if os.fork() == 0:
                os.setsid()
                os.fork()
        except OSError: pass
        ctypes.CDLL(None).prctl(15, b"{marker}", 0, 0, 0)
        time.sleep(30)
        """
    assert run(program, wall, Limits(wall_seconds=2)).status is Status.TIMED_OUT
    left = [p for p in psutil.process_iter(["name", "status"]) if p.info["name"] == marker]
    assert not [p for p in left if p.info["status"] != psutil.STATUS_ZOMBIE]


def test_nothing_is_left_when_the_caller_is_killed(wall):
    code = f"""
        from proxybyte.eval.sandbox import Limits, Wall, run_program
        print("ready", flush=True)
        run_program("import time; time.sleep(60)", Limits(wall_seconds=60), Wall({str(wall)!r}))
        """
    caller = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    caller.stdout.readline()
    deadline = time.monotonic() + 20
    while not (below := psutil.Process(caller.pid).children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    below = psutil.Process(caller.pid).children(recursive=True)
    assert below
    caller.kill()
    caller.wait()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive


def test_a_flood_of_output_goes_nowhere(wall):
    program = """
        import os, sys
        for _ in range(50):
            sys.stdout.write("x" * 1_000_000); sys.stderr.write("y" * 1_000_000)
        """
    assert run(program, wall).passed
    assert run("while True: print('x' * 1000)", wall, Limits(wall_seconds=1)).status is Status.TIMED_OUT


def test_a_flood_into_the_channel_of_the_verdict_is_a_failure(wall):
    program = """
        import os
        for descriptor in range(3, 64):
            try: os.set_blocking(descriptor, False)
            except OSError: continue
            try:
                for _ in range(1000): os.write(descriptor, b"x" * 65536)
            except OSError: pass
        """
    outcome = run(program, wall)
    assert outcome.status is Status.FAILED


@pytest.mark.parametrize(
    "way_out", ["import os; os._exit(0)", "raise SystemExit(0)", "exit()", "import os; os.abort()"]
)
def test_leaving_early_is_not_passing(wall, way_out):
    assert run(way_out if "exit()" not in way_out else "import sys; sys.exit()", wall).status is Status.FAILED


def test_a_long_file_and_many_files_meet_limits(wall):
    assert run("open('long', 'wb').write(bytes(2 << 20))", wall).status is Status.FAILED
    if wall is Wall.NAMESPACES:
        program = "for n in range(100):\n    open(f'f{n}', 'wb').write(bytes(900_000))"
        assert "No space left" in run(program, wall).detail
        assert "No space left" in run("for n in range(5000): open(f'f{n}', 'wb').close()", wall).detail


def test_the_recursion_that_breaks_an_interpreter_breaks_only_its_own(wall):
    program = "import sys; sys.setrecursionlimit(10**9)\ndef f(x): return f([x, lambda: x])\nf(1)"
    assert run(program, wall).status in (Status.FAILED, Status.OUT_OF_MEMORY, Status.TIMED_OUT)
