"""Paths as people write them: ``~`` and ``~name`` are home folders wherever a path is read.

A shell expands ``~/x`` at the start of a word alone: not in ``--out=~/x``, not in ``key=~/x``, not in a YAML file.
Every room reads paths through here. No model needs it, so it does not travel to the Hub.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class Parser(argparse.ArgumentParser):
    """A parser, with those of sub-commands under it, that reads arguments of ``type=Path`` by :func:`user_path`.

    Attributes:
        details: what ``--help`` shows at its end, made when it is asked for.
    """

    details: Callable[[], str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", Path, _argument)

    def format_help(self) -> str:
        """The help, with its details."""
        return super().format_help() + (f"\n{self.details()}" if self.details else "")


def _argument(text: str) -> Path:
    try:
        return user_path(text)
    except ProxyByteError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
