"""The program's process: runs the code, then answers what the tests ask of it. Nothing here is trusted by anyone.

Code that runs here can reach all of this process: it may say what it likes over the channel. What it says is taken as
the program's answers, never as a verdict.
"""

import builtins
import copy
import operator
import os
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from .wire import Channel, Garbled, Gone, from_wire, to_wire

MODULE = "program"
PASSED, FAILED, TIMED_OUT, OUT_OF_MEMORY = "passed", "failed", "timed out", "out of memory"
_LONGEST_DETAIL = 400
_FUNCTIONS = (len, iter, next, str, repr, bool, float, int, complex, abs, round, reversed, isinstance, setattr)
_OPERATORS = (operator.index, operator.getitem, operator.setitem, operator.delitem, copy.deepcopy)
OPERATIONS: dict[str, Callable] = {function.__name__: function for function in (*_FUNCTIONS, *_OPERATORS)}
"""What can be done to an object of the program's, by name."""


def serve(code: str, packages: str, channel: Channel) -> None:
    """Run ``code``, report how that went, and answer requests until the tests close the channel. Never returns.

    Messages out: ``["end", status, detail]`` once, then for each request ``["ok", value, changed]``, ``["raise", name,
    builtin bases, text, detail]`` or, while it is being answered, ``["callback", number, args, kwargs]``.
    """
    pid, leave, send = os.getpid(), os._exit, channel.send
    program = _Program(channel)
    for name in [name for name in sys.modules if name.split(".")[0] == __name__.split(".")[0]]:
        del sys.modules[name]
    failure = program.run(code, packages)
    try:
        if os.getpid() != pid:  # a child that the code forked and let run on
            leave(0)
        if failure is not None:
            # Whatever the code made of the words that it reports with: who has failed is not there to be asked on.
            send(["end", *failure])
            leave(0)
        send(["end", PASSED, ""])
        while True:
            send(program.answer(channel.receive()))
    except (Gone, Garbled):
        leave(0)


class _Program:
    """The namespace of the code, and the objects that the tests hold references to."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._module = types.ModuleType(MODULE)
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def run(self, code: str, packages: str) -> tuple[str, str] | None:
        """Run ``code`` as a module whose name is not ``__main__``, as in HumanEval's own harness; how it failed."""
        sys.modules[MODULE] = self._module
        set_up_interpreter(packages)
        try:
            # The one place that executes the model's text: running it is what this process exists for.
            builtins.exec(builtins.compile(code, f"{MODULE}.py", "exec"), self._module.__dict__)
        except MemoryError:
            return OUT_OF_MEMORY, "MemoryError"
        except BaseException as error:  # SystemExit too: a program that leaves has not passed
            return FAILED, describe(error, f"{MODULE}.py", "line")
        return None

    def answer(self, request: list) -> list:
        """The answer to one request: ``["word", text]``, ``["imports", lines]``, ``["get", name]``,
        ``["attribute", object, name]``, ``["call", object, args, kwargs]`` or ``["do", operation, args]``.
        """
        kind, *rest = request
        try:
            return getattr(self, f"_{kind}")(*rest)
        except (Gone, Garbled):
            raise
        except BaseException as error:
            bases = [base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins"]
            detail = describe(error, f"{MODULE}.py", "line")
            return ["raise", type(error).__name__, bases, _text(error), detail]

    def _word(self, text: str) -> list:
        return ["ok", text, []]

    def _imports(self, lines: str) -> list:
        """What the tests import the program knows too, as where both are one text."""
        builtins.exec(builtins.compile(lines, "imports.py", "exec"), self._module.__dict__)
        return ["ok", None, []]

    def _get(self, name: str) -> list:
        if name not in self._module.__dict__:
            raise ImportError(f"the program defines no {name}")
        return ["ok", self._out(self._module.__dict__[name]), []]

    def _attribute(self, target: Any, name: str) -> list:
        return ["ok", self._out(getattr(self._in(target), name)), []]

    def _do(self, operation: str, args: Any) -> list:
        return ["ok", self._out(OPERATIONS[operation](*self._in(args))), []]

    def _call(self, target: Any, args: Any, kwargs: Any) -> list:
        args, kwargs = self._in(args), self._in(kwargs)
        before = [self._out(value) for value in args]
        value = self._out(self._in(target)(*args, **kwargs))
        after = [self._out(value) for value in args]
        changed = [[place, new] for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        return ["ok", value, changed]

    def _out(self, value: Any) -> Any:
        return to_wire(value, self._refer)

    def _in(self, tree: Any) -> Any:
        return from_wire(tree, self._resolve)

    def _refer(self, value: Any) -> list:
        if is_builtin_type(value):
            return ["B", value.__name__]
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return ["h", self._numbers[id(value)], callable(value)]

    def _resolve(self, tree: list) -> Any:
        kind, *rest = tree
        if kind == "h":
            return self._objects[rest[0]]
        if kind == "G":
            return iter([self._in(item) for item in rest])
        if kind == "B":
            return getattr(builtins, rest[0])

        def callback(*args: Any, **kwargs: Any) -> Any:
            return self._call_back(rest[0], args, kwargs)

        return callback

    def _call_back(self, number: int, args: tuple, kwargs: dict) -> Any:
        """Call a function of the tests', and answer what they ask meanwhile."""
        self._channel.send(["callback", number, self._out(args), self._out(kwargs)])
        while (message := self._channel.receive())[0] not in ("return", "throw"):
            self._channel.send(self.answer(message))
        if message[0] == "throw":
            raise getattr(builtins, message[1], Exception)(message[2])
        return self._in(message[1])


def is_builtin_type(value: Any) -> bool:
    """Whether both sides have ``value``, a class, under its name."""
    return isinstance(value, type) and getattr(builtins, value.__name__, None) is value


def set_up_interpreter(packages: str) -> None:
    """Paths and arguments as programs and tests find them: the standard library and the installed packages."""
    sys.dont_write_bytecode = True
    sys.argv = [MODULE]
    sys.path[:] = [*(path for path in sys.path if path.startswith(sys.base_prefix)), packages]


def describe(error: BaseException, file: str, word: str) -> str:
    """The last line of ``error`` and where in ``file`` it came from, for people; never fails."""
    try:
        frames = traceback.extract_tb(error.__traceback__, limit=50)
        line = next((f"{word} {frame.lineno}, " for frame in reversed(frames) if frame.filename == file), "")
        text = "".join(traceback.format_exception_only(type(error), error)).strip()
        return (line + text.splitlines()[-1])[:_LONGEST_DETAIL] if text else line + type(error).__name__
    except BaseException:  # an exception whose own text raises
        return "an exception that cannot be printed"


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_LONGEST_DETAIL]
    except BaseException:  # its own text raises
        return ""
