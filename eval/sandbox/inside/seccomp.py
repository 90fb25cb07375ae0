"""A filter on system calls: what a solution to a programming problem needs is let through, all else refused.

The kernel runs it before every system call (classic BPF, ``man 2 seccomp``). It is the second wall behind namespaces,
and the first where there are none.
"""

import ctypes
import errno
import os
import struct

from .calls import ALLOWED, ALLOWED_WITH_NAMESPACES, NEWEST

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_MACHINE, _AT_FIRST_ARGUMENT, _AT_FIFTH_ARGUMENT = 0, 4, 16, 48
_X32_BIT = 0x40000000
_CLONE_THREAD, _CLONE_NAMESPACES = 0x00010000, 0x7E020080

_AUDIT_NUMBERS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMNS = {"x86_64": 0, "aarch64": 1}

# number on x86_64, number on aarch64
_CLONE, _CLONE3 = (56, 220), 435
_SENDTO = (44, 206)
_SOCKETPAIR = "socketpair"
_AF_UNIX = 1


def install_filter(*, single_process: bool) -> None:
    """Bind this process and all it starts to the filter; :func:`drop_capabilities` must have come before.

    Args:
        single_process: refuse new processes, new programs and signals too. Threads remain.

    Raises:
        OSError: if the kernel has no filters, or the machine is neither x86_64 nor aarch64.
    """
    machine = os.uname().machine
    if machine not in _COLUMNS:
        raise OSError(0, f"no system call numbers for {machine}")
    code = b"".join(_program(machine, single_process))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), program, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"system call filter: {os.strerror(number)}")


def _program(machine: str, single_process: bool) -> list[bytes]:
    column = _COLUMNS[machine]
    allowed = ALLOWED | ({} if single_process else ALLOWED_WITH_NAMESPACES)
    steps = [
        _step(_LOAD, _AT_MACHINE),
        _step(_JUMP_EQUAL, _AUDIT_NUMBERS[machine], 1, 0),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _AT_NUMBER),
    ]
    if machine == "x86_64":
        steps += [_step(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _refusal(errno.EPERM)]
    for name, numbers in allowed.items():
        number = numbers[column]
        if number is not None and name != _SOCKETPAIR:
            steps += [_step(_JUMP_EQUAL, number, 0, 1), _step(_RETURN, _ALLOW)]
    # A filter cannot look behind clone3's pointer: "no such call" sends the C library to clone.
    steps += [_step(_JUMP_EQUAL, _CLONE3, 0, 1), _refusal(errno.ENOSYS)]
    steps += _checked(_CLONE[column], _clone(single_process))
    steps += _checked(ALLOWED[_SOCKETPAIR][column], _first_is(_AF_UNIX))
    steps += _checked(_SENDTO[column], _no_address())
    steps += [_step(_JUMP_AT_LEAST, NEWEST + 1, 0, 1), _refusal(errno.ENOSYS)]
    return [*steps, _refusal(errno.EPERM)]


def _checked(number: int | None, check: list[bytes]) -> list[bytes]:
    """``check`` decides about this call, whatever it finds."""
    return [] if number is None else [_step(_JUMP_EQUAL, number, 0, len(check)), *check]


def _clone(single_process: bool) -> list[bytes]:
    """No namespaces; where there is to be one process, threads alone."""
    steps = [_step(_LOAD, _AT_FIRST_ARGUMENT), _step(_JUMP_ANY_BIT, _CLONE_NAMESPACES, 0, 1), _refusal(errno.EPERM)]
    if single_process:
        steps += [_step(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0), _refusal(errno.EPERM)]
    return [*steps, _step(_RETURN, _ALLOW)]


def _first_is(value: int) -> list[bytes]:
    """Its first argument, an ``int``, has this value."""
    return [
        _step(_LOAD, _AT_FIRST_ARGUMENT),
        _step(_JUMP_EQUAL, value, 1, 0),
        _refusal(errno.EPERM),
        _step(_RETURN, _ALLOW),
    ]


def _no_address() -> list[bytes]:
    """To the other end of a pair, not to an address: the fifth argument is the null pointer, in both its halves."""
    steps = []
    for half in (0, 4):
        steps += [_step(_LOAD, _AT_FIFTH_ARGUMENT + half), _step(_JUMP_EQUAL, 0, 1, 0), _refusal(errno.EPERM)]
    return [*steps, _step(_RETURN, _ALLOW)]


def _refusal(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One BPF instruction; jumps count the instructions to pass over."""
    return struct.pack("HBBI", operation, if_true, if_false, value)
