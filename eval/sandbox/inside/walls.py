"""What can be seen from inside: a root with the interpreter's files, four devices, and one empty folder to write in."""

import os

from . import kernel
from .job import SCRATCH, Job

_DEVICES = ("null", "zero", "random", "urandom")
_FOLDER_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC


def build_room(job: Job) -> None:
    """Replace the root by a small one; called as init of fresh namespaces, with every capability in them.

    Read only: ``job.read_only`` at their own paths, the devices, ``/proc`` of this process namespace. Writable:
    ``SCRATCH``, in memory and no larger than ``job.disk_bytes``, with the empty ``job.folder`` in it.

    Raises:
        OSError: if the kernel refuses a step.
    """
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    # Links (/lib on many systems) are made anew below.
    folders = [path for path in job.read_only if not os.path.islink(path)]
    # Sources are opened as the caller, who may see into folders that the mapped user may not.
    sources = {path: os.open(path, os.O_PATH) for path in [*folders, *(f"/dev/{name}" for name in _DEVICES)]}
    os.setresgid(job.user, job.user, job.user)
    os.setresuid(job.user, job.user, job.user)
    root = job.room
    kernel.mount("sandbox", root, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=755")
    for folder in (SCRATCH, "/proc"):
        os.makedirs(root + folder, exist_ok=True)
    # First, or it would hide packages that are installed below it, as in a virtual environment under /tmp.
    options = f"size={job.disk_bytes},nr_inodes=1024,mode=700"
    kernel.mount("room", root + SCRATCH, "tmpfs", _FOLDER_FLAGS, options)
    os.mkdir(root + job.folder, 0o700)
    for path, descriptor in sources.items():
        target = root + path
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        kernel.mount(f"/proc/self/fd/{descriptor}", target, None, kernel.MS_BIND | kernel.MS_REC)
        kernel.make_read_only(target, with_all_below=True)
        os.close(descriptor)
    for path in filter(os.path.islink, job.read_only):
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(os.readlink(path), root + path)
    kernel.mount("proc", root + "/proc", "proc", _FOLDER_FLAGS)
    kernel.change_root(root)
    kernel.make_read_only("/", with_all_below=False)
