"""What a value on a command line may be: one type of argparse for each kind of number, name and path.

Each takes the text that was typed and returns the value, or says in one sentence which values there are. The command
line puts the option's name before it. No model needs this, so it does not travel to the Hub.
"""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from .errors import ProxyByteError
from .user_paths import name_or_path, user_path

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""OWNER/NAME of a repository on the Hub."""
MEGABYTE = 1_000_000
_LARGEST_COUNT = 2**31 - 1
_LARGEST_SIZE_MB = 1e12
_TEMPERATURES = (1e-4, 1e4)
TEMPERATURES = "0 (greedy) or from 0.0001 to 10000"
"""What a temperature may be, as a sentence says it."""
LARGEST_VOCABULARY = 1 << 22
"""Symbols of a compressor: 16 times the largest tokenizer in use; libraries set memory aside for as many as asked."""


class NotTaken(argparse.ArgumentTypeError):
    """A value that an option does not take; the message goes on after the option's name."""


def whole(at_least: int, at_most: int = _LARGEST_COUNT) -> Callable[[str], int]:
    """The type of whole numbers between two bounds, both included."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # also for thousands of digits, which Python does not convert
            raise NotTaken(f"must be a whole number, not {_shown(text)}") from None
        if value < at_least:
            raise NotTaken(f"must be at least {at_least}, not {_shown(text)}")
        if value > at_most:
            raise NotTaken(f"must be at most {at_most}, not {_shown(text)}")
        return value

    return number


def real(at_least: float = -math.inf, at_most: float = math.inf, *, above: float = -math.inf) -> Callable[[str], float]:
    """The type of finite numbers between two bounds, both included, and above a third."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise NotTaken(f"must be a number, not {_shown(text)}") from None
        if not math.isfinite(value):
            raise NotTaken(f"must be a finite number, not {_shown(text)}")
        if value <= above:
            raise NotTaken(f"must be above {above:g}, not {_shown(text)}")
        if value < at_least:
            raise NotTaken(f"must be at least {at_least:g}, not {_shown(text)}")
        if value > at_most:
            raise NotTaken(f"must be at most {at_most:g}, not {_shown(text)}")
        return value

    return number


count = whole(1)
"""How many: at least 1."""
count_or_none = whole(0)
"""How many, where 0 means none."""
vocabulary = whole(1, LARGEST_VOCABULARY)
"""How many symbols a compressor has; families say how few they may be."""
processes = whole(0, 1 << 16)
"""Workers, where 0 means one a core."""
seed = whole(0, 2**64 - 1)
"""What random numbers start from: 64 bits, as PyTorch and NumPy take."""
positive = real(above=0)
"""A finite number above 0."""
not_negative = real(0)
"""A finite number from 0."""
probability = real(0, 1, above=0)
"""A share of probability that is kept, as of ``--top-p``: above 0, at most 1."""
seconds = real(above=0, at_most=1e6)
"""A time limit: at most eleven days."""
mebibytes = whole(1, 1 << 32)
"""Memory of a process, whose bytes are still a number of 64 bits."""


def megabytes(text: str) -> float:
    """A size in MB (10^6 bytes), at least one byte."""
    value = real(above=0, at_most=_LARGEST_SIZE_MB)(text)
    if value * MEGABYTE < 1:
        raise NotTaken(f"must be at least one byte (1e-06), not {_shown(text)}")
    return value


def bytes_of(size_mb: float) -> int:
    """Bytes of a size that :func:`megabytes` took."""
    return round(size_mb * MEGABYTE)


def share(text: str) -> float:
    """A part that leaves a rest: from 0 to below 1."""
    value = real(0)(text)
    if value >= 1:
        raise NotTaken(f"must be below 1, not {_shown(text)}")
    return value


def part(text: str) -> tuple[int, int]:
    """One of several parts, I/N, counted from 0: ``0/8`` to ``7/8``."""
    index, slash, of = text.partition("/")
    if not (slash and re.fullmatch(r"\d{1,9}", index, re.ASCII) and re.fullmatch(r"\d{1,9}", of, re.ASCII)):
        raise NotTaken(f"must be I/N, such as 0/8, not {_shown(text)}")
    if int(index) >= int(of):
        raise NotTaken(f"must be from 0/N to N-1/N (parts are counted from 0), not {_shown(text)}")
    return int(index), int(of)


def draws_at(temperature: float) -> bool:
    """Whether logits divided by ``temperature`` become neither infinite nor all alike."""
    return _TEMPERATURES[0] <= temperature <= _TEMPERATURES[1]


def temperature(text: str) -> float:
    """0, which is greedy, or one that :func:`draws_at`."""
    value = real(0)(text)
    if value and not draws_at(value):
        raise NotTaken(f"must be {TEMPERATURES}, not {_shown(text)}")
    return value


def name(text: str) -> str:
    """A name, as of a column: not empty, and text."""
    if not text.strip():
        raise NotTaken("must not be empty")
    if "\0" in text:
        raise NotTaken("must not hold a NUL")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise NotTaken(f"must be UTF-8, not {_shown(text)}: rename it") from None
    return text


def hub_name(text: str) -> str:
    """A repository on the Hub: OWNER/NAME."""
    if not HUB_NAME.fullmatch(text):
        raise NotTaken(f"must be OWNER/NAME, not {_shown(text)}")
    return text


def license_id(text: str) -> str:
    """A licence as the Hub spells it: small letters, digits, dots and hyphens."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", text):
        raise NotTaken(f"must be a licence as the Hub spells it, such as apache-2.0, not {_shown(text)}")
    return text


def language_code(text: str) -> str:
    """An ISO 639 code of a natural language."""
    if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", text):
        raise NotTaken(f"must be a code of a language, such as en, not {_shown(text)}")
    return text


def path(text: str) -> Path:
    """A path on this machine: a :func:`name`, with ``~`` at its start expanded."""
    try:
        return user_path(name(text))
    except ProxyByteError as error:
        raise NotTaken(f"is no path: {error}") from None


def picture(text: str) -> Path:
    """A :func:`path` of a picture to draw."""
    found = path(text)
    if found.suffix.lower() not in (".png", ".svg"):
        raise NotTaken(f"must end in .png or .svg, not {_shown(text)}")
    return found


def path_or_name(text: str) -> str:
    """What may be a path or a name, as of a shipped recipe or a model on the Hub; ``~`` is expanded."""
    try:
        return name_or_path(name(text))
    except ProxyByteError as error:
        raise NotTaken(f"is no path: {error}") from None


def _shown(text: str) -> str:
    """``text`` as a sentence may hold it: printable and short."""
    shown = text.encode("utf-8", "backslashreplace").decode() if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= 40 else f"{shown[:40]}..."
