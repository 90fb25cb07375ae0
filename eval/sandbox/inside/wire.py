"""How the process of the tests and that of the program talk: whole messages over two pipes, values as JSON.

Values of plain types are copied and rebuilt on the other side as those very types, so that what arrives has no method
that the sender wrote. Everything else stays where it is and is referred to by a number.
"""

import json
import os
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

LONGEST_MESSAGE = 1 << 28
_DEEPEST = 200
_ARRAY_TYPE = re.compile(r"[<>|=]?[biufcUSMm]\d*(\[\w+\])?")
_SMALL = 1 << 63


class Gone(BaseException):
    """The other side has closed the pipe; no ``except Exception`` of a test may swallow it."""


class Garbled(BaseException):
    """What the other side sent is no message."""


class Channel:
    """Messages to and from another process, over two pipes."""

    def __init__(self, read_end: int, write_end: int) -> None:
        self._read_end, self._write_end = read_end, write_end

    def send(self, message: Any) -> None:
        """Send one message.

        Raises:
            Gone: if nobody reads it.
        """
        data = json.dumps(message).encode("ascii")
        data = len(data).to_bytes(8, "big") + data
        sent = 0
        try:
            while sent < len(data):
                sent += os.write(self._write_end, data[sent : sent + (1 << 20)])
        except OSError as error:
            raise Gone from error

    def receive(self) -> Any:
        """The next message.

        Raises:
            Gone: if the other side closed its end between two messages.
            Garbled: if what comes is no message.
        """
        size = int.from_bytes(self._exactly(8), "big")
        if size > LONGEST_MESSAGE:
            raise Garbled(f"a message of {size} bytes")
        data = self._exactly(size)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Garbled("no JSON") from error

    def _exactly(self, size: int) -> bytes:
        data = read_exactly(self._read_end, size)
        if len(data) < size:
            raise Gone
        return data


def read_exactly(descriptor: int, size: int) -> bytes:
    """``size`` bytes, or fewer where the pipe ends before."""
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def to_wire(value: Any, refer: Callable[[Any], list]) -> Any:
    """``value`` for JSON; ``refer`` makes a reference of what cannot be copied.

    Instances of subclasses of plain types count as those: a named tuple travels as a tuple.
    """
    try:
        return _to_wire(value, refer, 0)
    except RecursionError:  # it holds itself, or is too deep
        return refer(value)


def _to_wire(value: Any, refer: Callable[[Any], list], depth: int) -> Any:
    if value is None or value is True or value is False:
        return value
    if depth > _DEEPEST:
        raise RecursionError
    kind = type(value)
    if kind.__module__ == "numpy" and hasattr(value, "dtype"):
        return _array_to_wire(value, refer)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        plain = int(value)
        return plain if -_SMALL < plain < _SMALL else ["i", hex(plain)]
    if isinstance(value, float):
        return float.__float__(value)

    def inner(items: Any) -> list:
        return [_to_wire(item, refer, depth + 1) for item in items]

    if isinstance(value, list):
        return ["l", *inner(list.__iter__(value))]
    if isinstance(value, tuple):
        return ["t", *inner(tuple.__iter__(value))]
    if isinstance(value, dict):
        name = "C" if kind is Counter else "O" if kind is OrderedDict else "d"
        return [name, *([*inner(pair)] for pair in dict.items(value))]
    if isinstance(value, (set, frozenset)):
        return ["s" if isinstance(value, set) else "z", *inner(iter(value))]
    if isinstance(value, (bytes, bytearray)):
        return ["b" if isinstance(value, bytes) else "y", bytes(value).hex()]
    return _rare_to_wire(value, kind, inner, refer)


def _rare_to_wire(value: Any, kind: type, inner: Callable[[Any], list], refer: Callable[[Any], list]) -> Any:
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is range:
        return ["r", *inner((value.start, value.stop, value.step))]
    if value is Ellipsis:
        return ["e"]
    if kind is Decimal:
        return ["D", str(value)]
    if kind is Fraction:
        return ["F", *inner((value.numerator, value.denominator))]
    if kind is deque:
        return ["q", value.maxlen, *inner(value)]
    if kind is timedelta:
        return ["T", "timedelta", value.days, value.seconds, value.microseconds]
    if kind in (date, datetime, time) and getattr(value, "tzinfo", None) is None:
        return ["T", kind.__name__, value.isoformat()]
    if kind is type({}.keys()):
        return ["K", *inner(value)]
    if kind is type({}.items()):
        return ["I", *([*inner(pair)] for pair in value)]
    return refer(value)


def _array_to_wire(value: Any, refer: Callable[[Any], list]) -> Any:
    dtype, shape = value.dtype.str, getattr(value, "shape", ())
    if not _ARRAY_TYPE.fullmatch(dtype):
        return refer(value)
    is_array = type(value).__name__ == "ndarray"
    return ["n" if is_array else "m", dtype, list(shape), value.tobytes().hex()]


def from_wire(tree: Any, resolve: Callable[[list], Any]) -> Any:
    """The value that :func:`to_wire` wrote; ``resolve`` finds what a reference refers to.

    Raises:
        Garbled: if it is none, whatever is wrong with it.
    """
    try:
        return _from_wire(tree, resolve)
    except MemoryError:
        raise
    except Exception as error:
        raise Garbled(f"no value: {type(error).__name__}") from error


def _from_wire(tree: Any, resolve: Callable[[list], Any]) -> Any:
    if not isinstance(tree, list):
        if isinstance(tree, dict):
            raise ValueError("an object")
        return tree
    kind, *rest = tree
    if kind in _MANY:
        return _MANY[kind](_from_wire(item, resolve) for item in rest)
    if kind in _PAIRS:
        return _PAIRS[kind]({_from_wire(key, resolve): _from_wire(value, resolve) for key, value in rest})
    if kind in _RARE:
        return _RARE[kind](*rest)
    if kind == "q":
        return deque((_from_wire(item, resolve) for item in rest[1:]), rest[0])
    if kind in ("r", "F"):
        return (range if kind == "r" else Fraction)(*(int(_from_wire(item, resolve)) for item in rest))
    return resolve(tree)


def _array(dtype: str, shape: list, data: str) -> Any:
    import numpy as np

    if not _ARRAY_TYPE.fullmatch(dtype):
        raise ValueError(dtype)
    return np.frombuffer(bytes.fromhex(data), np.dtype(dtype)).reshape(shape).copy()


def _moment(kind: str, *rest: Any) -> Any:
    if kind == "timedelta":
        return timedelta(*rest)
    kinds: dict[str, Callable] = {"date": date.fromisoformat, "datetime": datetime.fromisoformat}
    return (kinds | {"time": time.fromisoformat})[kind](*rest)


_MANY: dict[str, Callable] = {
    "l": list,
    "t": tuple,
    "s": set,
    "z": frozenset,
    "K": lambda keys: dict.fromkeys(keys).keys(),
}
_PAIRS: dict[str, Callable] = {"d": dict, "C": Counter, "O": OrderedDict, "I": lambda found: found.items()}
_RARE: dict[str, Callable] = {
    "i": lambda text: int(text, 16),
    "b": bytes.fromhex,
    "y": bytearray.fromhex,
    "c": complex,
    "e": lambda: Ellipsis,
    "D": Decimal,
    "T": _moment,
    "n": _array,
    "m": lambda dtype, _shape, data: _array(dtype, [1], data)[0],
}
