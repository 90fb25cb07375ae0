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
from proxybyte.eval.sandbox.limits import Limits, Outcome, Status, Wall

_HERE = Path(__file__).parent
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from inside.launcher import main; main()"
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
        arguments = [_interpreter(), "-S", "-s", "-P", "-X", "utf8", "-c", _START, str(_HERE), str(os.getpid())]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )

    def run(self, program: str, limits: Limits, wall: Wall) -> Outcome:
        """Run ``program`` to its end or to its limits; it passes if it ends without an exception.

        It runs as a module whose name is not ``__main__``, in an empty folder, with standard streams at the null
        device, none of this process's environment and descriptors, and the interpreter and packages that run this
        process. When this returns, no process that it started is alive (with ``Wall.LIMITS`` only those in its session
        are looked for).

        Raises:
            SandboxBroken: if ``wall`` cannot be built here.
        """
        if "\0" in program:
            return Outcome(Status.FAILED, "source code holds a null byte")
        with tempfile.TemporaryDirectory(prefix="proxybyte-", ignore_cleanup_errors=True) as room:
            job = {
                "program": program.encode("utf-8", "replace").decode("utf-8"),
                "namespaces": wall is Wall.NAMESPACES,
                "filters": wall is not Wall.LIMITS,
                "room": os.path.realpath(room),
                "read_only": visible_paths(),
                "packages": _packages(),
                "user": _NOBODY if os.getuid() == 0 else os.getuid(),
                **vars(limits),
            }
            report = self._ask(json.dumps(job), limits.wall_seconds + _GRACE_SECONDS)
        if report["status"] == "broken":
            raise SandboxBroken(wall, report["detail"])
        return Outcome(Status(report["status"]), report["detail"], report["seconds"])

    def _ask(self, job: str, patience: float) -> dict:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(job.encode("ascii") + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return self._post_mortem()
        if not select.select([process.stdout], [], [], patience)[0]:
            process.kill()
            return {"status": "broken", "detail": "the launcher hung"}
        line = process.stdout.readline()
        return json.loads(line) if line else self._post_mortem()

    def _post_mortem(self) -> dict:
        said = self._process.communicate()[1].decode("utf-8", "replace").strip()
        return {"status": "broken", "detail": said.splitlines()[-1] if said else "the launcher ended without a word"}

    def close(self) -> None:
        """End the process, and with it whatever it runs."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_program(program: str, limits: Limits, wall: Wall) -> Outcome:
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
