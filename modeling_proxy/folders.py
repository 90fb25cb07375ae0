"""Files and folders that are either complete or absent: built beside their place, synced, then put into it in one step.

What every command does with its output folder is here, once:

- it holds the lock on it (:mod:`.locks`), taken before anything is read, and refuses with the owner's name;
- it refuses, with the names, to replace a folder that holds what it did not write (:func:`check_output`);
- it builds in a sibling, ``NAME.partial``, and records there what it wrote, by content (:mod:`.checksums`);
- the new folder and the earlier one change places in one step where the kernel can, so that ``NAME`` is always one of
  them whole (:func:`publish`). Where it cannot, the earlier one waits as ``.NAME.old`` meanwhile, and whoever holds
  the lock next brings back what a killed process left there.

No model needs this module, so it does not travel to the Hub.
"""

import ctypes
import errno
import io
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .checksums import SUMS, Record, files_in, folder_record, read_record, verify_folder
from .errors import ProxyByteError
from .faults import disk_full_sentence, faults_named
from .locks import hold, hold_if_free, refuse_if_held
from .privacy import forget_paths

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be replaced either
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
_SHOWN_NAMES = 5


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
    """Write a file so that a reader finds the old content or the new, never a part; its folder is made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path) as (temporary, file):
        try:
            with faults_named(path):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync(path.parent)


@contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """An empty file beside ``path``, locked, and its name.

    The name is the same for every process, so that what one left that was killed as it wrote is used up by the next.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    while True:
        with temporary.open("ab") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_at(file, temporary):  # another process has put it in its place meanwhile
                    continue
            file.truncate(0)
            yield temporary, file
            return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of text in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """:func:`write_bytes` of JSON, indented, with a line feed at its end."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_figure(path: Path, figure: "Figure", dpi: int) -> None:
    """:func:`write_bytes` of a Matplotlib figure, in the format that the name's ending says."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.removeprefix("."), dpi=dpi)
    write_bytes(path, drawn.getvalue())


@contextmanager
def output_folder(final: Path, kind: str) -> Iterator[None]:
    """What a command does around all its work: hold the lock, mend what a killed one left, refuse what is not its own.

    Raises:
        ProxyByteError: as :func:`check_output`, if another process holds the lock, or the disk does not take it.
    """
    with locked_output(final):
        check_output(final, kind)
        yield


@contextmanager
def locked_output(final: Path) -> Iterator[None]:
    """:func:`output_folder` for a command that decides by itself what it may replace."""
    with _in_one_sentence(final), hold(final):
        mend(final)
        yield


@contextmanager
def part_of_output(final: Path, part: str, work: Path | None = None) -> Iterator[Path]:
    """Where ``final`` is built (:func:`partial_folder`), for one of several processes that build it together.

    Each holds the lock on its own part, so that none is built twice at once, and :func:`check_parts` lets nobody
    finish while one is at work.

    Args:
        final: what is built.
        part: a name for what this process does.
        work: the folder that they share, where it is another one.

    Raises:
        ProxyByteError: if another process does this part, or builds or finishes all of ``final``.
    """
    partial = work or partial_folder(final)
    refuse_if_held(final)
    with _in_one_sentence(final), hold(partial / part):
        refuse_if_held(final)  # once more: whoever finishes looks for parts only after it has taken the lock
        yield partial


def check_parts(final: Path, work: Path | None = None) -> None:
    """Refuse to finish ``final`` while another process is at work on a part of it; the caller holds the lock on it.

    Raises:
        ProxyByteError: naming the process.
    """
    partial = work or partial_folder(final)
    for lock in sorted(partial.glob(".*.lock")):
        refuse_if_held(partial / lock.name.removeprefix(".").removesuffix(".lock"))


def is_made_of(final: Path, kind: str, made_of: str) -> bool:
    """Whether ``final`` is what this command would make: it was killed in the moment that it had put it in its place.

    Raises:
        ProxyByteError: if it is, but a file in it has changed since.
    """
    record = read_record(final) if final.is_dir() else None
    if record is None or record.kind != kind or record.made_of != made_of:
        return False
    verify_folder(final)
    return True


def check_output(final: Path, kind: str) -> None:
    """Refuse to replace anything but an earlier output of the same kind that holds nothing else.

    Raises:
        ProxyByteError: if ``final`` is a file, or a folder that holds something else; the message names it.
    """
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return
    record = read_record(final) if final.is_dir() else None
    if record is None or record.kind != kind:
        what = "a file" if not final.is_dir() else f"of kind '{record.kind}'" if record else _names(files_in(final))
        raise ProxyByteError(
            f"{final} exists and is no earlier output of kind '{kind}' (it is or holds {what}): name another --out, it "
            "will not be replaced"
        )
    if more := sorted(files_in(final).keys() - record.names):
        raise ProxyByteError(
            f"{final} holds what this command did not write ({_names(more)}): move that away, or name another --out"
        )


def finish(
    partial: Path,
    kind: str,
    made_of: str = "",
    sums: Mapping[str, str] | None = None,
    unsummed: tuple[str, ...] = (),
    known: Mapping[str, str] | None = None,
) -> Record:
    """Make the complete folder ``partial`` fit to be published: modes, no private paths, the record of its content.

    Args:
        partial: the folder.
        kind: of output.
        made_of: digest of what it was made of (:func:`~.checksums.digest_of_input`).
        sums: SHA-256 of files that were finished earlier, by path in the folder; they must still be so.
        unsummed: files whose content is no function of the input (:class:`~.checksums.Record`).
        known: SHA-256 of files that were hashed as they were written, by path; they are not read again.

    Returns:
        The record.

    Raises:
        ProxyByteError: if one is not.
    """
    forget_paths(partial)
    mode = partial.stat().st_mode & 0o666  # a new folder follows the umask, and safetensors' files do not
    for path in files_in(partial).values():
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)
    record = folder_record(partial, kind, made_of, unsummed, known)
    for name, digest in (sums or {}).items():
        if record.sums.get(name) != digest:
            raise ProxyByteError(f"{partial / name} has changed since it was finished: remove it, then run again")
    write_text(partial / SUMS, record.to_text())
    sync_tree(partial)
    return record


def publish(partial: Path, final: Path) -> None:
    """Move the finished folder ``partial`` to ``final``, in the place of an older one, which is removed.

    ``final`` is one of them, whole, at every moment (see the module's text for old kernels); a process that has files
    of the older one open keeps them. The caller holds the lock, and has called :func:`check_output`.
    """
    final = final.resolve()
    if not final.exists():
        partial.rename(final)
    elif _exchange(partial, final):
        _remove_output(partial)
    else:
        old = _old(final)
        final.rename(old)
        partial.rename(final)
        _remove_output(old)
    sync(final.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder whose name says that it is whole: it loses the name first, so that nobody finds half of it."""
    going = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going)


def tidy(final: Path) -> None:
    """:func:`mend` where there is nothing else to do; what is locked by another process is left as it is."""
    with hold_if_free(final) as mine:
        if mine:
            mend(final)


def mend(final: Path) -> None:
    """Bring back, or clear away, what a process that was killed while it published left beside ``final``."""
    final = final.resolve()
    old = _old(final)
    if old.is_dir():
        if final.exists():
            _remove_output(old)
        else:
            old.rename(final)


@contextmanager
def whole_folder(final: Path, kind: str, made_of: str = "") -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``final`` when the block ends; on any error it is removed.

    Args:
        final: the place.
        kind: of output, such as ``"corpus"``: an earlier one of the same kind is replaced.
        made_of: digest of what it is made of, if the command wants to know its own output again.

    Raises:
        ProxyByteError: as :func:`output_folder`.
    """
    partial = partial_folder(final)
    with output_folder(final, kind):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            yield partial
            finish(partial, kind, made_of)
            check_output(final, kind)  # something may have been put there meanwhile
            publish(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _in_one_sentence(final: Path) -> Iterator[None]:
    """Faults of the disk as one sentence that names ``final``, whichever library met them."""
    try:
        yield
    except ProxyByteError:
        raise
    except Exception as error:
        if (sentence := disk_full_sentence(error, final)) is not None:
            raise ProxyByteError(sentence) from error
        if isinstance(error, OSError) and _is_about(error, final):
            raise ProxyByteError(f"{final} cannot be written: {error}") from error
        raise


def _is_about(error: OSError, final: Path) -> bool:
    """Whether the file that could not be used is part of the output, not of what a command reads."""
    if error.filename is None:
        return False
    path, final = Path(os.fsdecode(error.filename)).absolute(), final.absolute()
    homes = (final, partial_folder(final), final.resolve())
    return path in final.parents or any(path.is_relative_to(home) for home in homes)


def _old(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")  # hidden: "NAME.old" may be a copy that somebody keeps


def _exchange(first: Path, second: Path) -> bool:
    """Let two folders change names in one step; ``False`` where the system or the file system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))


def _remove_output(folder: Path) -> None:
    """Remove a replaced output; what came into it at the last moment is kept beside it, and said."""
    record = read_record(folder)
    for name in record.names if record is not None else ():
        (folder / name).unlink(missing_ok=True)
    (folder / SUMS).unlink(missing_ok=True)
    for path in sorted((each for each in folder.rglob("*") if each.is_dir()), reverse=True):
        with suppress(OSError):
            path.rmdir()
    try:
        folder.rmdir()
    except OSError:
        kept = next(each for n in range(1, 1000) if not (each := folder.with_name(f"{folder.name}.kept-{n}")).exists())
        folder.rename(kept)
        log.warning("%s holds what was put into the replaced folder meanwhile", kept)


def _names(names: Iterable[str]) -> str:
    shown = sorted({name.split("/")[0] for name in names})
    more = f" and {len(shown) - _SHOWN_NAMES} more" if len(shown) > _SHOWN_NAMES else ""
    return ", ".join(shown[:_SHOWN_NAMES]) + more
