"""Which walls this machine has, found out by building them."""

import sys
from dataclasses import dataclass
from functools import lru_cache

from proxybyte.errors import ProxyByteError
from proxybyte.eval.sandbox.limits import Limits, Wall
from proxybyte.eval.sandbox.runner import SandboxBroken, run_program

_PROBE = "import os, math, tempfile"


@dataclass(frozen=True)
class Capabilities:
    """What can be had here.

    Attributes:
        wall: the strongest wall that stood.
        refusals: for each stronger one, the reason why it did not.
    """

    wall: Wall
    refusals: tuple[str, ...] = ()

    def report(self) -> str:
        """What holds and what does not, for people, in a few lines."""
        lines = {
            Wall.NAMESPACES: "sandbox: namespaces (own users, mounts, processes, network), system call filter, limits",
            Wall.FILTERS: "sandbox: NO namespaces; Landlock and a system call filter (one process, no sockets), limits",
            Wall.LIMITS: "sandbox: WEAK, resource limits alone: the code can read your files and use the network",
        }
        return "\n".join([lines[self.wall], *(f"  not available: {reason}" for reason in self.refusals)])


@lru_cache(maxsize=1)
def capabilities() -> Capabilities:
    """The strongest wall that stands on this machine; tried once by running a program of ours behind each."""
    if sys.platform == "win32":
        raise ProxyByteError("generated code cannot be run on Windows: use Linux, or the Linux subsystem")
    refusals: list[str] = []
    for wall in (Wall.NAMESPACES, Wall.FILTERS) if sys.platform == "linux" else ():
        try:
            if run_program(_PROBE, Limits(), wall).passed:
                return Capabilities(wall, tuple(refusals))
            refusals.append(f"{wall}: a trivial program does not run behind it")
        except SandboxBroken as error:
            refusals.append(f"{wall}: {error.reason}")
    return Capabilities(Wall.LIMITS, tuple(refusals or [f"no namespaces or filters on {sys.platform}"]))


def choose_wall(*, confirmed: bool, allow_weak: bool) -> Wall:
    """The wall to run generated code behind.

    Args:
        confirmed: the user has said that generated code may run.
        allow_weak: the user has said that it may run behind resource limits alone.

    Raises:
        ProxyByteError: without the user's word, or where only a weak wall stands and the user has not accepted it.
    """
    if not confirmed:
        raise ProxyByteError(
            "this runs code that a model wrote: read about the sandbox in docs/code_eval.md, "
            "then add --confirm-run-unsafe-code"
        )
    found = capabilities()
    if found.wall is Wall.LIMITS and not allow_weak:
        raise ProxyByteError(
            f"no sandbox worth the name can be built here ({'; '.join(found.refusals)}): run on Linux 5.13 or later, "
            "outside a container that forbids it, or accept resource limits alone with --weak-sandbox"
        )
    return found.wall
