"""Run untrusted programs, each in a process of its own, and say how they ended."""

import json
import os
import select
import subprocess
import sys
import sysconfig
import tempfile
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from proxybyte.errors import ProxyByteError
from proxybyte.eval.sandbox.limits import Limits, Outcome, Status, Trial, Wall

_HERE = Path(__file__).parent
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from inside.launcher import main; main()"
_READY, _BROKEN = b"ready\n", "broken"
"""What the launcher says: that it runs; and of a job, that the walls do not stand."""
_NOBODY = 65534
_GRACE_SECONDS = 20.0
"""Beyond the program's own time: the launcher keeps the time, this is for a launcher that hangs."""
_ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""All that the program sees. A fixed seed for hashes: the same samples get the same verdicts."""


class SandboxBroken(ProxyByteError):
    """The walls could not be built; ``reason`` is the kernel's."""

    def __init__(self, wall: Wall, reason: str):
        super().__init__(f"the sandbox ({wall}) cannot be built on this machine: {reason}")
        self.reason = reason


class Launcher:
    """The process that runs programs, one after the other; starting it takes longer than a short program.

    Use it from the thread that made it: the kernel ends it with that thread.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, program: Trial | str, limits: Limits, wall: Wall) -> Outcome:
        """Run ``program`` to its end or to its limits; whatever it does, what comes back is its own outcome.

        Its code runs as a module whose name is not ``__main__``, in an empty folder, with standard streams at the null
        device, none of this process's environment and descriptors, and the interpreter and packages that run this
        process. Its tests run in another process behind the same walls, and reach the code as the module ``program``.
        When this returns, no process that it started is alive (with ``Wall.LIMITS`` only those in its session are
        looked for).

        Args:
            program: code with tests; or code alone, which passes if it ends without an exception.
            limits: of each of its processes.
            wall: what stands around it.

        Raises:
            SandboxBroken: if ``wall`` cannot be built here.
        """
        trial = program if isinstance(program, Trial) else Trial(program)
        process = self._process or self._start(wall)
        if "\0" in trial.code:
            return Outcome(Status.FAILED, "source code holds a null byte")
        with tempfile.TemporaryDirectory(prefix="proxybyte-", ignore_cleanup_errors=True) as room:
            job = {
                "code": trial.code.encode("utf-8", "replace").decode("utf-8"),
                "namespaces": wall is Wall.NAMESPACES,
                "filters": wall is not Wall.LIMITS,
                "room": os.path.realpath(room),
                "read_only": visible_paths(),
                "packages": _packages(),
                "user": _NOBODY if os.getuid() == 0 else os.getuid(),
                **vars(limits),
            }
            report = self._ask(
                process, json.dumps(job).encode("ascii"), trial.tests, limits.wall_seconds + _GRACE_SECONDS
            )
        if report["status"] == _BROKEN:
            raise SandboxBroken(wall, report["detail"])
        # Half a character, which an exception's text may hold, is none that can be written down.
        detail = report["detail"].encode("utf-8", "backslashreplace").decode("utf-8")
        return Outcome(Status(report["status"]), detail, report["seconds"])

    def _ask(self, process: "subprocess.Popen[bytes]", job: bytes, tests: str, patience: float) -> dict:
        assert process.stdin is not None
        assert process.stdout is not None
        source = tests.encode("utf-8", "surrogatepass")
        line = b""
        try:
            process.stdin.write(b"".join(len(part).to_bytes(8, "big") for part in (job, source)) + job + source)
            process.stdin.flush()
            if select.select([process.stdout], [], [], patience)[0]:
                line = process.stdout.readline()
        except BrokenPipeError:
            pass
        if line:
            return json.loads(line)
        # It stood when the program came: only the program can have ended it. The next one gets another.
        self.close()
        return {"status": Status.FAILED, "detail": "the launcher of programs hung or was killed", "seconds": 0.0}

    def _start(self, wall: Wall) -> "subprocess.Popen[bytes]":
        """A process that has said that it is ready.

        Raises:
            SandboxBroken: if it ends before that.
        """
        arguments = [_interpreter(), "-S", "-s", "-P", "-X", "utf8", "-c", _START, str(_HERE), str(os.getpid())]
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        assert process.stdout is not None
        if process.stdout.readline() != _READY:
            said = process.communicate()[1].decode("utf-8", "replace").strip()
            reason = said.splitlines()[-1] if said else "the launcher ended without a word"
            raise SandboxBroken(wall, reason)
        self._process = process
        return process

    def close(self) -> None:
        """End the process, and with it whatever it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_program(program: Trial | str, limits: Limits, wall: Wall) -> Outcome:
    """Run one program; see :meth:`Launcher.run`."""
    with Launcher() as launcher:
        return launcher.run(program, limits, wall)


@lru_cache
def _interpreter() -> str:
    """The interpreter itself, without a virtual environment: its libraries are all that is needed."""
    return os.path.realpath(sys.executable)


@lru_cache
def _packages() -> str:
    """The folder that holds NumPy."""
    spec = find_spec("numpy")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parents[1])


@lru_cache
def visible_paths() -> list[str]:
    """Folders that a program may read: the interpreter's libraries, the system's, and the installed packages.

    Packages, because the tests of HumanEval+ and MBPP+ import NumPy. No path lies inside another.
    """
    names = ["stdlib", "platstdlib"]
    wanted = [sysconfig.get_path(name, vars={"base": sys.base_prefix, "platbase": sys.base_prefix}) for name in names]
    wanted += [_packages(), "/lib", "/lib64", "/usr/lib", "/usr/lib64", f"{sys.base_prefix}/lib", "/usr/share/zoneinfo"]
    found = sorted({path for path in wanted if Path(path).is_dir()})
    outermost: list[str] = []
    for path in found:
        if not any(path.startswith(f"{outer}/") for outer in outermost):
            outermost.append(path)
    return outermost
