"""Paths as people write them: ``~`` and ``~name`` are home folders wherever a path is read.

A shell expands ``~/x`` at the start of a word alone: not in ``--out=~/x``, not in ``key=~/x``, not in a YAML file.
Every room reads paths through here. No model needs it, so it does not travel to the Hub.
"""

from pathlib import Path

from .errors import ProxyByteError


def user_path(text: str | Path) -> Path:
    """The path that was meant.

    Raises:
        ProxyByteError: if it names a user that is not there, or holds a NUL, which no path can.
    """
    if "\0" in str(text):
        raise ProxyByteError(f"path {str(text)!r} holds a NUL character: leave it out")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ProxyByteError(f"path {str(text)!r} names no home folder: write ./~... if that is its name") from error


def name_or_path(text: str) -> str:
    """A name as it is, or the path that was meant; for what may be either."""
    return str(user_path(text)) if text.startswith("~") else text
