"""File access by list (``man 7 landlock``): the wall around files where a mount namespace cannot be had."""

import os
import struct
from collections.abc import Sequence

from .kernel import syscall

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST_RIGHTS = (1 << 13) - 1
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NETWORK_RIGHTS, _SCOPES = 0b11, 0b11


def landlock_version() -> int:
    """Version of the kernel's interface, 0 where there is none."""
    try:
        return syscall(_CREATE, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict_files(read_only: Sequence[str], read_write: Sequence[str]) -> None:
    """Close every file and folder to this process and its children but those at or below the given paths.

    Where the kernel knows how, TCP ports, abstract sockets and signals to processes outside are closed too.

    Raises:
        OSError: if the kernel has no Landlock, or a path cannot be opened.
    """
    version = landlock_version()
    rights = _FIRST_RIGHTS
    rights |= _REFER if version >= 2 else 0
    rights |= _TRUNCATE if version >= 3 else 0
    rights |= _IOCTL_DEV if version >= 5 else 0
    attributes = struct.pack("Q", rights)
    attributes += struct.pack("Q", _NETWORK_RIGHTS) if version >= 4 else b""
    attributes += struct.pack("Q", _SCOPES) if version >= 6 else b""
    ruleset = syscall(_CREATE, attributes, len(attributes), 0)
    for paths, allowed in ((read_only, _READ_FILE | _READ_DIR), (read_write, rights & ~_EXECUTE)):
        for path in paths:
            _allow(ruleset, path, allowed & rights)
    syscall(_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights if os.path.isdir(path) else rights & _FOR_FILES, descriptor)
        syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
