"""A cell's training under a launcher: its processes stop when this one is asked to, and do not outlive it."""

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from proxybyte.errors import ProxyByteError

from ..processes import ends_with_this_process
from ..run.signals import StopRequest

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
            process = subprocess.Popen(words, start_new_session=True, preexec_fn=ends_with_this_process())
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
