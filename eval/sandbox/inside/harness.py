"""The tests' process: runs the tests in an interpreter that the program's code never enters, and gives the verdict.

Tests reach the program as the module ``program``: what they import from it lives in the other process. Its answers are
copied as plain values (:mod:`wire`) or stay there behind a :class:`Remote`, which equals nothing but itself; so no
method that a model wrote ever decides a comparison here.
"""

import ast
import builtins
import secrets
import sys
import types
from collections.abc import Callable
from typing import Any

from .program import FAILED, MODULE, OUT_OF_MEMORY, PASSED, describe, is_builtin_type, set_up_interpreter
from .wire import Channel, Garbled, Gone, from_wire, to_wire

LEFT = "left"
"""Verdict on a program whose process ended: how it ended is for its parent to say."""
_TESTS = "tests.py"


def judge(tests: str, packages: str, channel: Channel) -> tuple[str, str]:
    """Status and detail of a program, after its code has run and ``tests`` have been tried against it."""
    set_up_interpreter(packages)
    program = ProgramClient(channel)
    status, detail = LEFT, ""
    try:
        status, detail = program.ending()
        if status == PASSED:
            status, detail = _run_tests(tests, program)
    except (Gone, Garbled):
        pass
    except MemoryError:
        status, detail = OUT_OF_MEMORY, "MemoryError"
    return program.fault or (status, detail)  # the fault: a test may have swallowed it


def _run_tests(tests: str, program: "ProgramClient") -> tuple[str, str]:
    sys.modules[MODULE] = _RemoteModule(MODULE, program)
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    try:
        code = builtins.compile(tests, _TESTS, "exec")
        program.request("imports", _imports(tests))
        builtins.exec(code, module.__dict__)
        # A word made after the last assertion: whoever wrote the words of success in advance does not know it.
        word = secrets.token_hex(16)
        if program.request("word", word) != word:
            return FAILED, "left before its tests had ended"
    except MemoryError:
        return OUT_OF_MEMORY, "MemoryError"
    except (Gone, Garbled):
        raise
    except BaseException as error:
        return FAILED, getattr(error, "program_detail", None) or describe(error, _TESTS, "test line")
    return PASSED, ""


def _imports(tests: str) -> str:
    """The import statements at the tests' top level, those from the program left out."""
    found = [
        ast.unparse(node)
        for node in ast.parse(tests).body
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module != MODULE)
    ]
    return "\n".join(found)


class ProgramClient:
    """The program, from the tests' side.

    Attributes:
        fault: verdict on a program that left or spoke out of turn, once it did; it stands whatever tests do.
    """

    def __init__(self, channel: Channel) -> None:
        self.fault: tuple[str, str] | None = None
        self._channel = channel
        self._callbacks: list[Callable] = []
        self._remotes: dict[int, Remote] = {}

    def ending(self) -> tuple[str, str]:
        """How the code itself ended, by its own word: the least that can be said against it."""
        match self._receive():
            case ["end", str(status), str(detail)] if status in (PASSED, FAILED, OUT_OF_MEMORY):
                return status, detail
        raise self._garbled("no report of its end")

    def request(self, kind: str, *rest: Any) -> Any:
        """Ask the program; see ``program._Program.answer``. Arguments of calls that it changed are changed here too."""
        given = rest[1] if kind == "call" else ()
        if kind in ("call", "do", "attribute"):
            rest = tuple(self._out(value) for value in rest) if kind != "do" else (rest[0], self._out(rest[1]))
        self._send([kind, *rest])
        while True:
            match self._receive():
                case ["ok", value, list(changed)]:
                    self._take_over(given, changed)
                    return self._in(value)
                case ["raise", str(name), list(bases), str(text), str(detail)]:
                    raise self._error(name, bases, text, detail)
                case ["callback", int(number), args, kwargs] if 0 <= number < len(self._callbacks):
                    self._send(self._called_back(number, self._in(args), self._in(kwargs)))
                case _:
                    raise self._garbled("an answer to nothing")

    def _called_back(self, number: int, args: Any, kwargs: Any) -> list:
        try:
            return ["return", self._out(self._callbacks[number](*args, **kwargs))]
        except Exception as error:
            return ["throw", type(error).__name__, str(error)]

    def _take_over(self, given: Any, changed: list) -> None:
        for old, new in self._guarded(lambda: [(given[int(place)], self._in(tree)) for place, tree in changed]):
            if type(old) is not type(new):
                raise self._garbled("an argument of another type")
            if isinstance(old, (list, bytearray)):
                old[:] = new
            elif isinstance(old, (dict, set)):
                old.clear()
                old.update(new)
            elif hasattr(old, "dtype"):
                old[...] = new

    def _error(self, name: str, bases: list, text: str, detail: str) -> BaseException:
        found = [getattr(builtins, base, None) for base in bases if isinstance(base, str)]
        kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseException)]
        kind = kinds[0] if kinds else Exception
        if not issubclass(kind, Exception):  # SystemExit and its like: who leaves has not passed
            self.fault = (FAILED, detail)
            raise Gone
        if issubclass(kind, MemoryError):
            return MemoryError(text)
        try:
            error: Any = type(name, (kind,), {})(text) if name != kind.__name__ else kind(text)
        except (TypeError, ValueError):  # UnicodeError wants more, and a name may be none
            error = Exception(text)
        error.program_detail = detail
        return error

    def _out(self, value: Any) -> Any:
        return to_wire(value, self._refer)

    def _refer(self, value: Any) -> list:
        if isinstance(value, Remote):
            return ["h", object.__getattribute__(value, "_number")]
        if is_builtin_type(value):
            return ["B", value.__name__]
        if hasattr(value, "__next__"):
            return ["G", *(self._out(item) for item in value)]
        if callable(value):
            self._callbacks.append(value)
            return ["k", len(self._callbacks) - 1]
        raise TypeError(f"the tests cannot hand {type(value).__name__} objects to the program")

    def _in(self, tree: Any) -> Any:
        return self._guarded(lambda: from_wire(tree, self._resolve))

    def _resolve(self, tree: list) -> Any:
        match tree:
            case ["h", int(number), bool(can_be_called)]:
                if number not in self._remotes:
                    self._remotes[number] = (RemoteCallable if can_be_called else Remote)(self, number)
                return self._remotes[number]
            case ["B", str(name)] if isinstance(getattr(builtins, name, None), type):
                return getattr(builtins, name)
        raise ValueError("no reference")

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Garbled as error:
            raise self._garbled(str(error)) from error
        except (ValueError, TypeError, IndexError) as error:
            raise self._garbled(type(error).__name__) from error

    def _receive(self) -> Any:
        try:
            return self._guarded(self._channel.receive)
        except Gone:
            self.fault = self.fault or (LEFT, "")
            raise

    def _send(self, message: Any) -> None:
        try:
            self._channel.send(message)
        except Gone:
            self.fault = self.fault or (LEFT, "")
            raise

    def _garbled(self, what: str) -> Garbled:
        self.fault = self.fault or (FAILED, f"wrote into the channel of its answers ({what[:100]})")
        return Garbled(what)


class _RemoteModule(types.ModuleType):
    """The program, for ``from program import name``."""

    def __init__(self, name: str, program: ProgramClient) -> None:
        super().__init__(name)
        self.__dict__["_program"] = program

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self.__dict__["_program"].request("get", name)
        except ImportError as error:
            raise AttributeError(str(error)) from error


class Remote:
    """An object of the program's that has no plain value. It equals and hashes as itself alone, and takes no part in
    arithmetic.
    """

    def __init__(self, program: ProgramClient, number: int) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)
        return object.__getattribute__(self, "_program").request("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _do("setattr")(self, name, value)

    def __deepcopy__(self, _memo: dict) -> Any:
        return _do("deepcopy")(self)


class RemoteCallable(Remote):
    """A function or class of the program's."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it there."""
        return object.__getattribute__(self, "_program").request("call", self, args, kwargs)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Remote) and bool(_do("isinstance")(value, self))


def _do(operation: str) -> Callable[..., Any]:
    def method(self: Remote, *args: Any) -> Any:
        return object.__getattribute__(self, "_program").request("do", operation, (self, *args))

    return method


# No arithmetic, order or membership: they would hand the value that is expected to whoever is to be compared with it.
for _name in "len iter next str repr bool float int complex abs round reversed index getitem setitem delitem".split():  # noqa: SIM905
    setattr(Remote, f"__{_name}__", _do(_name))
