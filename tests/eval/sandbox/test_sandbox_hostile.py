"""Hostile programs, behind each wall that this machine has. Every one is bounded by itself as well."""

import os
import secrets
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from proxybyte.eval.sandbox import Limits, Status, Wall, capabilities, run_program

pytestmark = pytest.mark.skipif(capabilities().wall is Wall.LIMITS, reason="this machine has weak walls only")

TIGHT = Limits(
    wall_seconds=4, cpu_seconds=2, memory_bytes=512 << 20, file_bytes=1 << 20, disk_bytes=4 << 20, processes=8
)


@pytest.fixture(params=[Wall.NAMESPACES, Wall.FILTERS])
def wall(request) -> Wall:
    if request.param is Wall.NAMESPACES and capabilities().wall is not Wall.NAMESPACES:
        pytest.skip(capabilities().report())
    return request.param


def run(program: str, wall: Wall, limits: Limits = TIGHT):
    return run_program(textwrap.dedent(program), limits, wall)


def processes_with(marker: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if any(marker in part for part in p.info["cmdline"] or [])]


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


@pytest.mark.parametrize(
    "attack",
    [
        "open('{outside}/new', 'w').write('x')",
        "open('{outside}/kept', 'w').write('x')",
        "open('{outside}/kept').read()",
        "import os; os.remove('{outside}/kept')",
        "import os; os.rename('{outside}/kept', '{outside}/moved')",
        "import os; os.mkdir('{outside}/folder')",
        "import os; os.listdir('{outside}')",
        "import os; os.symlink('{outside}', 'link'); open('link/kept').read()",
        "import os; os.listdir(os.path.expanduser('~root'))",
        "import os; assert len(os.listdir('{home}')) > 1  # one, where the interpreter lies below it",
        "open('{home}/.bashrc').read()",
        "open('/etc/passwd').read()",
        "open('/usr/lib/planted', 'w').write('x')",
        "open('/dev/sda', 'rb').read(1)",
        "open('/proc/1/mem', 'r+b').read(1)",
        "open('/proc/sys/kernel/hostname', 'w').write('x')",
        "import os; os.chroot('.')",
        "import ctypes, os; assert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0",
    ],
)
def test_files_outside_are_out_of_reach(wall, attack, tmp_path):
    (tmp_path / "kept").write_text("mine")
    tmp_path.chmod(0o777)
    program = attack.format(outside=tmp_path, home=Path.home())
    outcome = run(program, wall)
    assert outcome.status is Status.FAILED, outcome
    assert outcome.detail.split(", ", 1)[-1].startswith(
        ("PermissionError", "FileNotFoundError", "NotADirectoryError", "AssertionError", "OSError: [Errno 30]")
    ), outcome.detail
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.mark.parametrize(
    "attack",
    [
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
        "socket.create_connection(('127.0.0.1', {port}), timeout=2)",
        "__import__('urllib.request').request.urlopen('http://127.0.0.1:{port}', timeout=2)",
    ],
)
def test_there_is_no_network(wall, attack):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = run("import socket\n" + attack.format(port=server.getsockname()[1]), wall)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert outcome.status is Status.FAILED
    assert "ermi" in outcome.detail


def test_the_environment_holds_no_secret(wall, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    program = """
        import os
        assert "HF_TOKEN" not in os.environ and "HOME" not in os.environ, dict(os.environ)
        for name in ("/proc/self/environ", "/proc/1/environ", f"/proc/{os.getppid()}/environ"):
            try: assert b"hf_secret" not in open(name, "rb").read()
            except OSError: pass
        """
    outcome = run(program, wall)
    assert outcome.passed, outcome


@pytest.mark.parametrize("number", [9, 15, 19])
def test_signals_reach_nobody_outside(wall, number):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        program = f"""
            import os
            refused = 0
            for target in ({os.getpid()}, {bystander.pid}, os.getppid(), -1):
                try: os.kill(target, {number})
                except (PermissionError, ProcessLookupError): refused += 1
            raise SystemExit(f"{{refused}} refused")
            """
        outcome = run(program, wall)
        assert outcome.status is Status.FAILED, outcome
        assert bystander.poll() is None
        assert psutil.Process(bystander.pid).status() != psutil.STATUS_STOPPED
    finally:
        bystander.kill()
        bystander.wait()


def test_another_process_can_be_neither_traced_nor_read(wall):
    program = f"""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.ptrace(16, {os.getpid()}, None, None) == -1
        raise SystemExit(f"errno {{ctypes.get_errno()}}")
        """
    assert "errno 1" in run(program, wall).detail


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
