"""Which system calls a program in the sandbox may make, and their numbers.

What is not named here is refused: what the kernel learns later too. ``tests/eval/sandbox/test_sandbox_calls.py``
compares the numbers with the kernel's own headers.
"""

_FILES = """
read 0 63, write 1 64, open 2 -, openat 257 56, openat2 437 437, creat 85 -, close 3 57, close_range 436 436,
lseek 8 62, pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, preadv 295 69, pwritev 296 70,
preadv2 327 286, pwritev2 328 287, stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291,
statfs 137 43, fstatfs 138 44, access 21 -, faccessat 269 48, faccessat2 439 439, getdents 78 -,
getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -, renameat 264 38, renameat2 316 276,
mkdir 83 -, mkdirat 258 34, rmdir 84 -, link 86 -, linkat 265 37, unlink 87 -, unlinkat 263 35, symlink 88 -,
symlinkat 266 36, readlink 89 -, readlinkat 267 78, chmod 90 -, fchmod 91 52, fchmodat 268 53, chown 92 -,
fchown 93 55, lchown 94 -, fchownat 260 54, umask 95 166, utime 132 -, utimes 235 -, utimensat 280 88,
futimesat 261 -, truncate 76 45, ftruncate 77 46, fallocate 285 47, fadvise64 221 223, getxattr 191 8,
lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13, fsync 74 82,
fdatasync 75 83, sendfile 40 71, copy_file_range 326 285, splice 275 76, flock 73 32, fcntl 72 25, ioctl 16 29,
dup 32 23, dup2 33 -, dup3 292 24
"""
_WAITING = """
pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441,
eventfd 284 -, eventfd2 290 19, signalfd 282 -, signalfd4 289 74, timerfd_create 283 85, timerfd_settime 286 86,
timerfd_gettime 287 87, socketpair 53 199, recvfrom 45 207, shutdown 48 210, getsockopt 55 209,
setsockopt 54 208, getsockname 51 204, getpeername 52 205
"""
"""Pipes, pairs of connected sockets (asyncio wakes itself through one), timers and events as descriptors."""
_MEMORY = """
brk 12 214, mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, mincore 27 232,
msync 26 227, membarrier 324 283, get_mempolicy 239 236
"""
_ITSELF = """
arch_prctl 158 -, prctl 157 167, set_tid_address 218 96, set_robust_list 273 99, get_robust_list 274 100,
rseq 334 293, futex 202 98, futex_waitv 449 449, exit 60 93, exit_group 231 94, getpid 39 172, getppid 110 173,
gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148,
getresgid 120 150, getgroups 115 158, getpgid 121 155, getpgrp 111 -, getsid 124 156, setpgid 109 154,
setsid 112 157, getrlimit 97 163, setrlimit 160 164, getrusage 98 165, times 100 153, sysinfo 99 179,
uname 63 160, capget 125 90, getpriority 140 141, sched_yield 24 124, sched_getaffinity 204 123,
sched_getparam 143 121, sched_getscheduler 145 120, sched_get_priority_max 146 125,
sched_get_priority_min 147 126, getcpu 309 168, getrandom 318 278, restart_syscall 219 128, wait4 61 260,
waitid 247 95
"""
_TIME_AND_SIGNALS = """
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -, alarm 37 -, setitimer 38 103, getitimer 36 102,
timer_create 222 107, timer_settime 223 110, timer_gettime 224 108, timer_getoverrun 225 109,
timer_delete 226 111, nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114,
gettimeofday 96 169, time 201 -
"""
_OTHER_PROCESSES = """
fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, kill 62 129, tkill 200 130, tgkill 234 131,
rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, pidfd_open 434 434, pidfd_send_signal 424 424,
prlimit64 302 261, setpriority 141 140, sched_setscheduler 144 119, sched_setaffinity 203 122,
sched_setparam 142 118
"""
"""Starting, signalling and steering processes: harmless where those of the program are the only ones that it sees."""
NEWEST = 451
"""The highest number that this table knows of; a later call is said not to exist: the C library does without it."""


def _read(table: str) -> dict[str, tuple[int | None, int | None]]:
    rows = (row.split() for row in table.replace("\n", " ").split(",") if row.strip())
    return {name: (_number(x86_64), _number(aarch64)) for name, x86_64, aarch64 in rows}


def _number(word: str) -> int | None:
    return None if word == "-" else int(word)


ALLOWED = _read(",".join((_FILES, _WAITING, _MEMORY, _ITSELF, _TIME_AND_SIGNALS)))
"""Name: its number on x86_64 and on aarch64; ``None`` where the machine has no such call."""
ALLOWED_WITH_NAMESPACES = _read(_OTHER_PROCESSES)
"""Allowed too where the process has a namespace of processes around it."""
