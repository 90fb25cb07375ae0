"""Runs command lines, each in a fork of this process, so that what commands import is imported once.

A line of input is JSON: ``words``, and ``log``, the file for what it says, or ``errors`` another for its stderr. Its
``cwd`` and ``environment`` are its own too. With ``module`` the words are that program's, of ``python -m``. With
``at``, a function as ``MODULE:NAME``, the process sends itself the ``signal`` where it first comes to that function, or
with ``after`` where it leaves it: so it is met in the midst of its work however busy the machine is. With ``of`` that
is the call with this last argument. ``file_bytes`` limits its files: it is refused more, or with ``ends`` ended by the
kernel. ``memory_bytes`` is what its address space may grow by. With ``clock_jumps`` its time of day does. With
``group`` it leads a process group of its own. With ``ranks`` so many processes are that command, started by torchrun's
own agent, which the process is then. ``watch`` is for ``soak/crash_points.py``: it counts what the command does to
files, ends it there, notes its rows.

A line of output is the process's number; when it has ended, its exit code stands in the file ``code``. Any number of
them run at a time.
"""

import importlib
import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).with_name("soak")))  # which tests/soak itself and its tests have there too

import crash_points
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import proxybyte.training.byteify
import proxybyte.training.prepare
import proxybyte.training.train  # noqa: F401 (and what it imports)
from proxybyte.cli import load_commands, main


def interrupt(order: dict) -> None:
    """Have this process send itself a signal, once, where it comes to a function or leaves it."""
    number, after, of = order["signal"], order.get("after", False), order.get("of")
    module, name = order["at"].split(":")
    owner = importlib.import_module(module)
    function = getattr(owner, name)

    def met(*arguments, **options):
        if of is not None and str(arguments[-1]) != of:
            return function(*arguments, **options)
        setattr(owner, name, function)
        if not after:
            os.kill(os.getpid(), number)
        done = function(*arguments, **options)
        if after:
            os.kill(os.getpid(), number)
        return done

    setattr(owner, name, met)


def work(order: dict) -> int:
    """Be the command."""
    for number, name in ((1, order["log"]), (2, order.get("errors", order["log"]))):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(order.get("cwd", "."))
    os.environ.update(order.get("environment", {}))
    sys.argv = ["proxybyte", *order["words"]]
    if "at" in order:
        interrupt(order)
    if order.get("group"):
        os.setsid()
    if "watch" in order:
        crash_points.watch(**order["watch"])
    if order.get("clock_jumps"):
        crash_points.let_clock_jump()
    if "memory_bytes" in order:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + order["memory_bytes"], resource.RLIM_INFINITY))
    if "file_bytes" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if order.get("ends") else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"], resource.RLIM_INFINITY))
    program = importlib.import_module(order["module"]).main if "module" in order else main
    return launched(program, order) if "ranks" in order else program(order["words"])


def launched(program: Callable[[list[str]], int], order: dict) -> int:
    """Be torchrun, whose ranks are forks of this process."""
    how = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "start_method": "fork", "max_restarts": 0}
    config = LaunchConfig(1, 1, order["ranks"], run_id="fork", monitor_interval=0.1, **how)
    try:
        elastic_launch(config, rank)(program, order)
    except ChildFailedError as error:
        return next(iter(error.failures.values())).exitcode
    return 0


def rank(program: Callable[[list[str]], int], order: dict) -> None:
    """Be one of the processes of a launch; its number is noted beside the log."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # the agent's own are none of a rank's, which it starts anew
    note = Path(order["log"]).with_name(f"rank{os.environ['RANK']}")
    note.with_suffix(".part").write_text(str(os.getpid()))
    note.with_suffix(".part").rename(note)
    if code := program(order["words"]):
        sys.exit(code)


def serve() -> None:
    """Fork for each line, and note how each ended."""
    codes: dict[int, str] = {}
    waiting = b""
    while True:
        # Where somebody waits for an end it is looked for a hundred times a second.
        if select.select([0], [], [], 0.01 if codes else None)[0]:
            new = os.read(0, 1 << 16)
            if not new and not codes:
                return
            waiting += new
        *lines, waiting = waiting.split(b"\n")
        for line in lines:
            order = json.loads(line)
            child = os.fork()
            if child == 0:
                be(order)
            codes[child] = order["code"]
            print(child, flush=True)
        for child in [*codes]:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                path = Path(codes.pop(child))
                part = path.with_suffix(".part")
                part.write_text(str(os.waitstatus_to_exitcode(status)))
                part.replace(path)


def be(order: dict) -> NoReturn:
    """Be the command, to the end of this process."""
    try:
        code = work(order)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    load_commands()
    serve()
