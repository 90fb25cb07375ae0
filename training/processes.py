"""The processes of one job under ``torchrun`` or ``accelerate launch``: how many were asked for, and how many run."""

import os
from collections.abc import Mapping, Sequence

import psutil

from proxybyte.errors import ProxyByteError


def asked_processes(environment: Mapping[str, str], parent_command: Sequence[str]) -> int | None:
    """How many processes the launcher was asked for, or ``None`` where it did not say.

    ``accelerate launch --cpu --num_processes 2`` starts one process and leaves no trace in its environment, so the
    launcher's own command line is read too.
    """
    if "WORLD_SIZE" in environment:
        return int(environment["WORLD_SIZE"])
    words = list(parent_command)
    if not any("accelerate" in word for word in words[:4]):
        return None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name.replace("-", "_") == "__num_processes":
            number = value or following
            return int(number) if number.isdigit() else None
    return None


def check_launch(size: int) -> None:
    """Stop where ``size`` processes run and the launcher was asked for another number.

    Raises:
        ProxyByteError: naming both numbers and the way out.
    """
    check_asked(size, asked_processes(os.environ, psutil.Process(os.getppid()).cmdline()), "the launcher was asked for")


def check_asked(size: int, wanted: int | None, who: str) -> None:
    """Stop where ``size`` processes run and ``who`` wanted another number (``None``: no wish).

    Raises:
        ProxyByteError: naming both numbers and the way out.
    """
    if wanted is not None and wanted != size:
        raise ProxyByteError(
            f"{size} process(es) run, but {who} {wanted}: on a CPU launch with 'torchrun --nproc-per-node {wanted}'"
        )
