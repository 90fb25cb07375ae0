"""The few Linux calls that Python 3.11 has no function for."""

import ctypes
import os
import struct
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 1, 2

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SYS_MOUNT_SETATTR = 442
_BY_MACHINE = {"x86_64": {"pivot_root": 155, "capset": 126}, "aarch64": {"pivot_root": 41, "capset": 91}}
_CAPABILITY_VERSION_3 = 0x20080522


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Call the kernel.

    Raises:
        OSError: with the kernel's error number.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    packed = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    return _checked(libc.syscall(ctypes.c_long(number), *packed), f"system call {number}")


def unshare(flags: int) -> None:
    """Leave the namespaces that ``flags`` name."""
    _checked(ctypes.CDLL(None, use_errno=True).unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount ``source`` (a path, or a name for a file system without one) on ``target``."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _checked(result, f"mount {target}")


def make_read_only(target: str, *, with_all_below: bool) -> None:
    """What is mounted at ``target`` (and below) can be read only, and raises no privileges."""
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
    reach = _AT_RECURSIVE if with_all_below else 0
    syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), reach, attributes, len(attributes))


def change_root(new_root: str) -> None:
    """Make ``new_root``, a mount point, the root; the old one is gone from this mount namespace."""
    os.chdir(new_root)
    syscall(_machine_number("pivot_root"), b".", b".")
    _checked(ctypes.CDLL(None, use_errno=True).umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability; a later ``exec`` brings none back."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    syscall(_machine_number("capset"), header, bytes(24))


def hide_memory() -> None:
    """Close this process's memory and descriptors to other processes of its user, and those that it forks; Linux."""
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, its parent, ends; exits at once if that has happened."""
    _prctl(_PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    _checked(ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def _machine_number(name: str) -> int:
    machine = os.uname().machine
    if machine not in _BY_MACHINE:
        raise OSError(0, f"{name} is not known on {machine}")
    return _BY_MACHINE[machine][name]


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
