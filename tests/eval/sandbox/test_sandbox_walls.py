"""Which walls stand is found out and said; the strongest is taken, and none without the user's word."""

import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.eval.sandbox import (
    Capabilities,
    Limits,
    Outcome,
    SandboxBroken,
    Status,
    Wall,
    capabilities,
    capability,
    choose_wall,
    run_program,
    run_programs,
    runner,
)
from proxybyte.eval.sandbox.runner import Launcher

WALL = capabilities().wall
ASK = """
    import os
    from proxybyte.eval.sandbox import Limits, capabilities, run_program
    print(capabilities().report())
    print(run_program("import os; os.listdir('/etc')", Limits(), capabilities().wall))
    """


def elsewhere(*unshare: str, before: str = "true") -> str:
    """What ``ASK`` prints under ``unshare`` with these options, after a shell command."""
    shell = f'{before} && exec "$@"'
    command = ["unshare", *unshare, "bash", "-c", shell, "-", sys.executable, "-c", textwrap.dedent(ASK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


needs_namespaces = pytest.mark.skipif(
    WALL is not Wall.NAMESPACES or shutil.which("unshare") is None, reason="needs namespaces to simulate other machines"
)


@needs_namespaces
def test_an_ordinary_user_has_namespaces_too():
    said = elsewhere("--user", "--map-user=1000", "--map-group=1000")
    assert said.startswith("sandbox: namespaces")
    assert "FileNotFoundError" in said


@needs_namespaces
def test_where_namespaces_are_forbidden_it_says_so_and_filters_stand():
    said = elsewhere("--user", "--map-root-user", before="echo 0 > /proc/sys/user/max_user_namespaces")
    assert "NO namespaces; Landlock" in said
    assert "not available: namespaces: [Errno" in said
    assert "PermissionError" in said


def test_nothing_runs_without_the_users_word():
    with pytest.raises(ProxyByteError, match="--confirm-run-unsafe-code"):
        choose_wall(confirmed=False, allow_weak=True)


def test_a_weak_wall_is_refused_unless_it_is_accepted(monkeypatch):
    monkeypatch.setattr(capability, "capabilities", lambda: Capabilities(Wall.LIMITS, ("no kernel here",)))
    with pytest.raises(ProxyByteError, match=r"no kernel here.*--weak-sandbox"):
        choose_wall(confirmed=True, allow_weak=False)
    assert choose_wall(confirmed=True, allow_weak=True) is Wall.LIMITS
    assert "WEAK" in Capabilities(Wall.LIMITS).report()


def test_behind_resource_limits_alone_programs_still_end():
    limits = Limits(wall_seconds=1, cpu_seconds=1)
    programs = ["pass", "import time; time.sleep(9)", "x = bytearray(9 << 30)", "1 / 0"]
    found = [outcome.status for outcome in run_programs(programs, limits, Wall.LIMITS)]
    assert found == [Status.PASSED, Status.TIMED_OUT, Status.OUT_OF_MEMORY, Status.FAILED]


def test_outcomes_come_in_the_order_of_the_programs_and_equal_ones_run_once():
    told = []
    programs = [f"assert {number % 3}, 'three divides {number}'" for number in range(9)] * 2
    outcomes = run_programs(programs, Limits(), WALL, workers=3, on_outcome=lambda program, _: told.append(program))
    assert [outcome.passed for outcome in outcomes] == [number % 3 != 0 for number in range(9)] * 2
    assert outcomes[3].detail == "line 1, AssertionError: three divides 3"
    assert sorted(told) == sorted(set(programs))


def test_one_program_leaves_nothing_to_the_next():
    first = (
        "open('left', 'w').write('x')\nimport builtins, sys\nbuiltins.left = sys.left = 1\nsys.modules['math'] = None"
    )
    second = "import builtins, math, os, sys\nassert not os.listdir('.') and not hasattr(builtins, 'left')"
    with Launcher() as launcher:
        assert launcher.run(first, Limits(), WALL).passed
        assert launcher.run(second + "\nassert not hasattr(sys, 'left')", Limits(), WALL).passed


def test_programs_may_use_the_standard_library_numpy_and_their_folder():
    program = """
        import collections, dataclasses, decimal, hashlib, json, random, re
        import socket, sqlite3, tempfile, threading, typing
        import numpy as np
        assert np.allclose(np.linalg.inv(np.eye(3)), np.eye(3))
        @dataclasses.dataclass
        class Point:
            x: "int"
        assert Point(1).x == 1 and __name__ != "__main__"
        with open("file", "w+") as file:
            file.write("größer")
        assert open("file", encoding="utf-8").read() == "größer"
        thread = threading.Thread(target=print)
        thread.start(); thread.join()
        """
    with Launcher() as launcher:
        outcome = launcher.run(textwrap.dedent(program), Limits(), WALL)
    assert outcome.passed, outcome


@pytest.fixture
def packages_below_tmp(monkeypatch):
    """As where the virtual environment lies below /tmp."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "helper.py").write_text("ANSWER = 42\n")
        runner.visible_paths.cache_clear()
        monkeypatch.setattr(runner, "_packages", lambda: folder)
        yield
    runner.visible_paths.cache_clear()


def test_packages_that_are_installed_below_tmp_are_seen_and_the_folder_is_empty(packages_below_tmp):
    program = "import os, helper, tempfile\nassert helper.ANSWER == 42 and not os.listdir('.')\ntempfile.mkstemp()\n"
    program += "try:\n    open(helper.__file__, 'w')\nexcept OSError:\n    pass\nelse:\n    raise AssertionError"
    with Launcher() as launcher:
        outcome = launcher.run(program, Limits(), WALL)
    assert outcome.passed, outcome


@pytest.mark.parametrize("program", ["x = '\0'", "x = '\ud800'", "é = 1; assert é == 1", "\ufeffx = 1", ""])
def test_any_text_is_a_program_that_ends(program):
    with Launcher() as launcher:
        assert launcher.run(program, Limits(), WALL).status in (Status.PASSED, Status.FAILED)


def test_sets_are_ordered_alike_in_every_run():
    program = "raise ValueError(str(list({'a', 'b', 'c', 'd', 'e'})))"
    details = {run_program(program, Limits(), WALL).detail for _ in range(3)}
    assert len(details) == 1


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(ProxyByteError, match="sandbox: memory_bytes must be above 0, not 0"):
        Limits(memory_bytes=0)


def test_an_error_of_the_walls_is_no_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr("proxybyte.eval.sandbox.runner.visible_paths", lambda: [str(tmp_path / "absent")])
    if WALL is not Wall.LIMITS:
        with (
            pytest.raises(SandboxBroken, match=r"cannot be built on this machine: .*No such file"),
            Launcher() as launcher,
        ):
            launcher.run("pass", Limits(), WALL)


def test_a_failed_outcome_has_not_passed():
    assert not Outcome(Status.FAILED).passed
