"""What went wrong, in one sentence: a disk that takes no more, and everything that nobody expected.

Libraries report a full disk in many ways (``SafetensorError`` is no ``OSError``, Arrow writes text), so the place that
tells is one. No model needs this module, so it does not travel to the Hub.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ProxyByteError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "file too large", "storagefull", "os error 28")


def causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it came of, the outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk, or the quota or limit on it, took no more, whichever library says so."""
    return any(
        (isinstance(each, OSError) and each.errno in _FULL) or any(word in str(each).lower() for word in _FULL_WORDS)
        for each in causes(error)
    )


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Let what the system refuses inside the block name ``path``: by itself it does so for opening, not for writing."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


_CANNOT = "cannot load the"


@contextmanager
def loading(folder: Path, what: str) -> Iterator[None]:
    """Whatever a library meets while it loads ``what`` (a model, a tokenizer) from ``folder``, as one sentence.

    A damaged file makes libraries fail in any way: the file of JSON that is none is looked for, and named.

    Raises:
        ProxyByteError: in the place of any other error, and of one of ours that does not name ``folder``.
    """
    try:
        yield
    except MemoryError:
        raise
    except ProxyByteError as error:
        if str(folder) in str(error) or str(error).startswith(_CANNOT):  # of what is loaded inside
            raise
        raise ProxyByteError(f"{_CANNOT} {what} in {folder}: {error}") from error
    except Exception as error:
        reason = damaged_json(folder) or next(iter(str(error).splitlines()), type(error).__name__)
        raise ProxyByteError(f"{_CANNOT} {what} in {folder}: {reason}") from error


def damaged_json(folder: Path) -> str | None:
    """The first JSON file in ``folder`` that holds no object, and why; ``None`` where there is none."""
    for path in sorted(folder.glob("*.json")):
        try:
            if not isinstance(json.loads(path.read_bytes()), dict):
                return f"{path.name} holds no JSON object: copy it again"
        except (OSError, ValueError, RecursionError) as error:
            return f"{path.name} is damaged ({next(iter(str(error).splitlines()), '')}): copy it again"
    return None


def disk_full_sentence(error: BaseException, path: Path | None = None) -> str | None:
    """The sentence for a full disk; ``None`` where ``error`` is something else.

    Args:
        error: what was raised.
        path: what was being written, where it is known.
    """
    if not is_disk_full(error):
        return None
    if path is None:
        named = (each.filename for each in causes(error) if isinstance(each, OSError) and each.filename)
        path = next((Path(str(name)) for name in named), None)
    what = str(path) if path is not None else "the output"
    return (
        f"{what} cannot be written: the disk is full, or a limit on files is reached ({_free(path or Path.cwd())}): "
        "make room, then give the same command again"
    )


def unexpected_sentence(error: BaseException) -> str:
    """The sentence for what nobody expected."""
    first = next(iter(str(error).splitlines()), "").strip()
    return (
        f"unexpected {type(error).__name__}{f': {first}' if first else ''}: this is a fault in the program or its "
        "libraries; the same command with --debug shows where"
    )


def _free(path: Path) -> str:
    """What is free where ``path`` lies, or would lie."""
    home = next((each for each in (path.absolute(), *path.absolute().parents) if each.is_dir()), Path("/"))
    return f"{shutil.disk_usage(home).free / 1e6:,.1f} MB are free in {home}"
