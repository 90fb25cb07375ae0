"""A filter on system calls: what no solution to a programming problem needs is refused with an error.

The kernel runs it before every system call (classic BPF, ``man 2 seccomp``). It is the second wall behind namespaces,
and the first where there are none.
"""

import ctypes
import errno
import os
import struct

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_MACHINE, _AT_FIRST_ARGUMENT = 0, 4, 16
_X32_BIT = 0x40000000
_CLONE_THREAD, _CLONE_NAMESPACES = 0x00010000, 0x7E020080

_AUDIT_NUMBERS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMNS = {"x86_64": 0, "aarch64": 1}

# name: (number on x86_64, number on aarch64); None where the machine has no such call.
_ALWAYS_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "personality": (135, 92),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "fanotify_init": (300, 262),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}
_REFUSED_WITHOUT_NAMESPACES: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
}
_CLONE, _CLONE3 = (56, 220), 435


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
    refused = _ALWAYS_REFUSED | (_REFUSED_WITHOUT_NAMESPACES if single_process else {})
    steps = [
        _step(_LOAD, _AT_MACHINE),
        _step(_JUMP_EQUAL, _AUDIT_NUMBERS[machine], 1, 0),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _AT_NUMBER),
    ]
    if machine == "x86_64":
        steps += [_step(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _refusal(errno.EPERM)]
    for numbers in refused.values():
        number = numbers[column]
        if number is not None:
            steps += [_step(_JUMP_EQUAL, number, 0, 1), _refusal(errno.EPERM)]
    # A filter cannot look behind clone3's pointer: "no such call" sends the C library to clone.
    steps += [_step(_JUMP_EQUAL, _CLONE3, 0, 1), _refusal(errno.ENOSYS)]
    steps += [_step(_JUMP_EQUAL, _CLONE[column], 1, 0), _step(_RETURN, _ALLOW), _step(_LOAD, _AT_FIRST_ARGUMENT)]
    steps += [_step(_JUMP_ANY_BIT, _CLONE_NAMESPACES, 0, 1), _refusal(errno.EPERM)]
    if single_process:
        steps += [_step(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0), _refusal(errno.EPERM)]
    return [*steps, _step(_RETURN, _ALLOW)]


def _refusal(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One BPF instruction; jumps count the instructions to pass over."""
    return struct.pack("HBBI", operation, if_true, if_false, value)
