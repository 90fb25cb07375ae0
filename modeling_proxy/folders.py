"""Files and folders that are either complete or absent: built beside their place, synced, then renamed into it.

Every room writes what must outlive it through this module. No model needs it, so it does not travel to the Hub.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import ProxyByteError


def partial_folder(final: Path) -> Path:
    """Where the content of ``final`` is built: a sibling, so that the rename stays within one file system."""
    final = final.resolve()  # "." and ".." have no name of their own
    return final.with_name(f"{final.name}.partial")


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make every file and folder under ``folder`` durable."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of text in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """:func:`write_bytes` of JSON, indented, with a line feed at its end."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def publish(partial: Path, final: Path) -> None:
    """Move the complete folder ``partial`` to ``final``, in the place of an older one.

    The older one keeps its place until the new one is on disk; a process that has its files open keeps them.
    """
    sync_tree(partial)
    final = final.resolve()
    old = final.with_name(f".{final.name}.old")  # hidden: "NAME.old" may be a copy that somebody keeps
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``final`` when the block ends; on any error it is removed.

    Raises:
        ProxyByteError: if the disk does not take it.
    """
    partial = partial_folder(final)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        publish(partial, final)
    except OSError as error:
        raise ProxyByteError(f"{final} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_output(final: Path, marker: str) -> None:
    """Refuse to replace anything but an earlier output of the same command, known by its file ``marker``.

    Raises:
        ProxyByteError: if ``final`` is a file, or a folder that holds something else.
    """
    if final.is_dir() and (final / marker).is_file():
        return
    if final.exists() and not (final.is_dir() and not any(final.iterdir())):
        raise ProxyByteError(f"{final} exists and holds no {marker}: name another --out, it will not be replaced")
