"""Runs command lines, each in a fork of this process, so that what commands import is imported once.

A line of input is JSON: ``words``, and ``log``, the file for what it says, or ``errors`` another for its stderr. Its
``cwd`` and ``environment`` are its own too. With ``module`` the words are that program's, of ``python -m``. With
``at``, a function as ``MODULE:NAME``, the process sends itself the ``signal`` where it first comes to that function, or
with ``after`` where it leaves it: so it is met in the midst of its work however busy the machine is. With ``of`` that
is the call with this last argument. ``file_bytes`` limits its files.

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
from pathlib import Path
from typing import NoReturn

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
    if "file_bytes" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"], resource.RLIM_INFINITY))
    program = importlib.import_module(order["module"]).main if "module" in order else main
    return program(order["words"])


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
