"""What this machine can hold: asked before something is laid out, so that a slip of zeros is a sentence and no hang."""

from contextlib import suppress
from pathlib import Path

import psutil

from proxybyte.errors import ProxyByteError

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def host_memory() -> int:
    """Bytes of main memory that this process may use at all: the machine's, or a container's limit."""
    total = int(psutil.virtual_memory().total)
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            total = min(total, int(Path(path).read_text()))
    return total


def free_host_memory() -> int:
    """Bytes of main memory that this process could take now: what is available, or left of a container's limit."""
    return min(int(psutil.virtual_memory().available), host_memory())


def refuse_beyond(limit: float, wanted: float, what: str, fix: str) -> None:
    """Stop where ``wanted`` bytes are more than ``limit``.

    Args:
        limit: bytes that there are.
        wanted: bytes that ``what`` takes.
        what: for the message: what it is, and with which settings.
        fix: what to change.

    Raises:
        ProxyByteError: saying both sizes.
    """
    if wanted > limit:
        raise ProxyByteError(
            f"{what} takes {spell_size(wanted)} of memory and this machine has {spell_size(limit)}: {fix}"
        )


def spell_size(count: float) -> str:
    """A number of bytes for people."""
    if count < 1e9:
        return f"{count / 1e6:,.1f} MB"
    return f"{count / 1e9:,.1f} GB" if count < 1e15 else f"{count / 1e9:.1e} GB"
