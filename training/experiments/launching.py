"""A cell's training under a launcher: its processes stop when this one is asked to, and do not outlive it."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from proxybyte.errors import ProxyByteError

from ..run.signals import StopRequest

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.2


def launch(words: Sequence[str]) -> bool:
    """Run a command to its end.

    SIGTERM and Ctrl-C are passed on to all its processes once, so that they save and end; a second one ends this
    process, and with it (on Linux) the command.

    Returns:
        Whether it ran to its end; ``False`` if it was asked to stop.

    Raises:
        ProxyByteError: if the command cannot be run, or fails.
    """
    with StopRequest() as stop:
        try:
            # A group of its own: a terminal's Ctrl-C reaches it once, through here.
            process = subprocess.Popen(words, start_new_session=True, preexec_fn=_ends_with_this_process())
        except OSError as error:
            raise ProxyByteError(f"--launch: {words[0]} cannot be run: {error.strerror}") from error
        told = False
        while (code := _ended(process)) is None:
            if stop.made and not told:
                told = True
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
    if stop.made:
        return False
    if code:
        raise ProxyByteError(f"{shlex.join(words)} ended with {code}: its message is above")
    return True


def _ended(process: subprocess.Popen) -> int | None:
    """The exit code, ``None`` while it runs."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(_LOOK_SECONDS)
    return None


def _ends_with_this_process() -> Callable[[], None] | None:
    """What the child calls before it becomes the command: the kernel ends it when this process dies by any cause."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
