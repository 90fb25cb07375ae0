"""Places beyond this machine: ``s3://``, ``gs://``, ``hf://`` and whatever else fsspec reads, as paths.

A place is a :class:`pathlib.Path`, or a ``UPath``, which has the methods of one that readers use. What commands write
is made on this machine and copied; an object store knows neither locks nor renames, so the file that makes a folder
whole is copied last.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from proxybyte import numbers
from proxybyte.checksums import SUMS, Record, files_in, read_record
from proxybyte.errors import ProxyByteError

_MARK = "://"


def place(text: str) -> Path:
    """The type of command-line values that are a path on this machine or beyond it."""
    if _MARK not in text:
        return numbers.path(text)
    try:
        from upath import UPath

        found = UPath(numbers.name(text))
        _ = found.fs
    except ImportError as error:
        raise numbers.NotTaken(f"is beyond this machine ({error}): pip install 'proxybyte[scale]'") from None
    except ValueError as error:
        raise numbers.NotTaken(f"is no place: {error}") from None
    return cast(Path, found)


def is_remote(path: Path) -> bool:
    """Whether ``path`` is beyond this machine."""
    return not isinstance(path, Path)


def expanded(path: Path) -> list[Path]:
    """What a place with ``*`` in its name stands for, beyond this machine, where no shell expands it.

    Raises:
        ProxyByteError: if that is nothing.
    """
    if not is_remote(path) or not any(mark in str(path) for mark in "*?["):
        return [path]
    system: Any = path.fs  # type: ignore[attr-defined]
    found = [place(system.unstrip_protocol(each)) for each in sorted(system.glob(path.path))]  # type: ignore[attr-defined]
    if not found:
        raise ProxyByteError(f"{path} matches nothing: name files that are there")
    return found


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Whatever a library meets on its way to a place beyond this machine, as one sentence.

    Raises:
        ProxyByteError: in the place of any other error, where ``path`` is beyond this machine.
    """
    try:
        yield
    except (ProxyByteError, MemoryError):
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        raise ProxyByteError(f"{path} cannot be reached: {error}") from error


@contextmanager
def parquet_source(path: Path) -> Iterator[Path | BinaryIO]:
    """What pyarrow reads a parquet file from: the path itself, which it maps, or a file beyond this machine."""
    if not is_remote(path):
        yield path
        return
    with path.open("rb") as file:
        yield cast(BinaryIO, file)


def identity(path: Path) -> str:
    """Size, and what tells whether a file is still the same without reading it: a tag of its content, or its time."""
    if not is_remote(path):
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    info: dict[str, Any] = path.fs.info(path.path)  # type: ignore[attr-defined]
    marks = ("ETag", "etag", "sha256", "blob_id", "md5Hash", "LastModified", "mtime", "last_modified", "created")
    return f"{info['size']} {next((info[mark] for mark in marks if info.get(mark)), '')}"


@contextmanager
def fetched(named: str | Path) -> Iterator[str | Path]:
    """A copy on this machine, inside the block, of a folder or file beyond it; anything else is given back."""
    if _MARK not in str(named):
        yield named
        return
    found = place(str(named))
    if not found.exists():
        raise ProxyByteError(f"{named} does not exist: no such file or folder")
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary, found.name or "fetched")
        for name in names_below(found) if found.is_dir() else [""]:
            target = here / name if name else here
            target.parent.mkdir(parents=True, exist_ok=True)
            with (found / name if name else found).open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, numbers.MEGABYTE)
        yield here


def names_below(folder: Path) -> list[str]:
    """Every file below a folder beyond this machine, by path in it; none where there is no such folder."""
    system: Any = folder.fs  # type: ignore[attr-defined]
    home = str(folder.path).rstrip("/")  # type: ignore[attr-defined]
    system.invalidate_cache(home)
    return sorted(each.removeprefix(f"{home}/") for each in system.find(home) if each != home)


def send(source: Path, target: Path) -> None:
    """Copy a file to a place beyond this machine."""
    target.fs.put_file(str(source), target.path)  # type: ignore[attr-defined]


def remove(paths: Iterable[Path]) -> None:
    """Remove files beyond this machine."""
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def written_to(final: Path, kind: str, last: str) -> Iterator[Path]:
    """Where a command writes an output folder that is to lie at ``final``: itself, or a folder here that is copied.

    Args:
        final: the output.
        kind: of output (``proxybyte.folders``).
        last: the file by which readers know such a folder: it is copied last, and removed first.

    Raises:
        ProxyByteError: if ``final``, beyond this machine, holds what is no earlier output of this kind.
    """
    if not is_remote(final):
        yield final
        return
    earlier = earlier_record(final, kind)
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary, final.name)
        yield here
        if not here.exists():
            return
        names = {*files_in(here), SUMS}
        remove([final / last])
        for name in sorted(names, key=lambda name: (name == last, name == SUMS, name)):
            send(here / name, final / name)
        remove(final / name for name in earlier.names - names)


def earlier_record(final: Path, kind: str) -> Record:
    """What an earlier output of this kind at a place beyond this machine holds.

    Raises:
        ProxyByteError: if something else is there.
    """
    record = read_record(final)
    if record is None and not names_below(final):
        return Record(kind, {})
    if record is None or record.kind != kind:
        raise ProxyByteError(
            f"{final} is there and is no earlier output of kind '{kind}': name another --out, it will not be replaced"
        )
    return record
