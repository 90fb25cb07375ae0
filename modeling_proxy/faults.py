"""What went wrong, in one sentence: a disk that takes no more, and everything that nobody expected.

Libraries report a full disk in many ways (``SafetensorError`` is no ``OSError``, Arrow writes text), so the place that
tells is one. No model needs this module, so it does not travel to the Hub.
"""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

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
