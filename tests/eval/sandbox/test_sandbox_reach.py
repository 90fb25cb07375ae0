"""What a hostile program cannot reach: files, the home directory, the network, secrets, other processes."""

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from proxybyte.eval.sandbox import Limits, Status, Wall, capabilities, run_program

pytestmark = pytest.mark.skipif(capabilities().wall is Wall.LIMITS, reason="this machine has weak walls only")


def run(program: str, wall: Wall):
    return run_program(textwrap.dedent(program), Limits(wall_seconds=4, cpu_seconds=2, processes=8), wall)


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


@pytest.fixture
def home_file() -> Iterator[Path]:
    """A file of the user's, in the real home directory."""
    with tempfile.NamedTemporaryFile("w+", dir=Path.home(), prefix="proxybyte-test-") as file:
        file.write("mine")
        file.flush()
        Path(file.name).chmod(0o666)
        yield Path(file.name)


@pytest.mark.parametrize(
    "attack", ["open({file!r}).read()", "open({file!r}, 'a')", "__import__('os').remove({file!r})"]
)
def test_the_home_directory_is_out_of_reach(wall, attack, home_file):
    outcome = run(attack.format(file=str(home_file)), wall)
    assert outcome.status is Status.FAILED
    assert any(word in outcome.detail for word in ("PermissionError", "FileNotFoundError", "Read-only")), outcome
    assert home_file.read_text() == "mine"


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
