"""Runs command lines, each in a fork of this process, so that what commands import is imported once.

A line of input is JSON: ``words``, and ``log``, the file for what it says. With ``at``, a function as ``MODULE:NAME``,
the process sends itself the ``signal`` where it first comes to that function, or with ``after`` where it leaves it: so
it is met in the midst of its work however busy the machine is. With ``of`` that is the call with this last argument.
``file_bytes`` limits its files. A line of output is the process's number, and when it has ended, its exit code.
"""

import importlib
import json
import os
import resource
import signal
import sys
import traceback

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
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["proxybyte", *order["words"]]
    if "at" in order:
        interrupt(order)
    if "file_bytes" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"], resource.RLIM_INFINITY))
    return main(order["words"])


if __name__ == "__main__":
    load_commands()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                code = work(json.loads(line))
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
