"""``SHA256SUMS``: what a command wrote into a folder, by content.

Every folder that :func:`~.folders.whole_folder` puts in place holds one, in the format of ``sha256sum``, so that
``sha256sum --check SHA256SUMS`` reads it too. Its comments say which kind of output it is and, where a command that is
started again has to know its own output, what it was made of. By it a command tells what it may replace, and a reader
whether what it loads is what was written. No model needs this module, so it does not travel to the Hub.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import ProxyByteError

SUMS = "SHA256SUMS"
SKIP_FLAG = "--skip-checksums"
SKIP_VARIABLE = "PROXYBYTE_SKIP_CHECKSUMS"
"""Set by :data:`SKIP_FLAG`; an environment variable, so that workers and launched processes know it too."""
WEIGHTS = (".safetensors",)
"""Endings of the files of a model that are checked when it is loaded: the others are edited by hand."""
SEAL = "sha256"
"""Key of the digest in a JSON object that was sealed."""
_KIND, _MADE_OF, _UNSUMMED = "# proxybyte ", "# made of ", "# and "


@dataclass(frozen=True)
class Record:
    """The content of a ``SHA256SUMS``.

    Attributes:
        kind: of output, such as ``"corpus"``.
        sums: SHA-256 by path in the folder, with ``/`` between its parts.
        made_of: digest of the input and options, where the command says it.
        unsummed: files that belong to it too, but whose content is no function of its input (they hold times).
    """

    kind: str
    sums: Mapping[str, str]
    made_of: str = ""
    unsummed: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """All that the command wrote."""
        return {*self.sums, *self.unsummed}

    def to_text(self) -> str:
        """The content of the file."""
        head = f"{_KIND}{self.kind}\n" + (f"{_MADE_OF}{self.made_of}\n" if self.made_of else "")
        head += "".join(f"{_UNSUMMED}{name}\n" for name in self.unsummed)
        return head + "".join(f"{digest}  {name}\n" for name, digest in sorted(self.sums.items()))


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> dict[str, Path]:
    """Everything in a folder that is no folder, and every empty folder, by path in it, but for its ``SHA256SUMS``."""
    paths = (each for each in folder.rglob("*") if each.is_symlink() or not each.is_dir() or not any(each.iterdir()))
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    found.pop(SUMS, None)
    return found


def folder_record(
    folder: Path,
    kind: str,
    made_of: str = "",
    unsummed: tuple[str, ...] = (),
    known: Mapping[str, str] | None = None,
) -> Record:
    """The record of what lies in ``folder``; files whose SHA-256 is ``known`` are not read."""
    files = {name: path for name, path in files_in(folder).items() if path.is_file() and name not in unsummed}
    sums = {name: (known or {}).get(name, "") for name in files}
    unknown = {name: path for name, path in files.items() if not sums[name]}
    with ThreadPoolExecutor() as readers:  # hashing lets go of Python's lock
        sums |= dict(zip(unknown, readers.map(file_digest, unknown.values()), strict=True))
    return Record(kind, sums, made_of, unsummed)


def read_record(folder: Path) -> Record | None:
    """The record in ``folder``, ``None`` where there is none (another program wrote it, or an earlier version of ours).

    Raises:
        ProxyByteError: if it cannot be read.
    """
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ProxyByteError(f"{path} cannot be read: remove it to use the folder unchecked ({error})") from error
    comments = [line for line in lines if line.startswith("#")]
    kind = next((line.removeprefix(_KIND) for line in comments if line.startswith(_KIND)), "")
    made_of = next((line.removeprefix(_MADE_OF) for line in comments if line.startswith(_MADE_OF)), "")
    pairs = [line.split("  ", 1) for line in lines if line and not line.startswith("#")]
    if any(len(pair) != 2 for pair in pairs):
        raise ProxyByteError(f"{path} is damaged: remove it to use the folder unchecked")
    unsummed = tuple(line.removeprefix(_UNSUMMED) for line in comments if line.startswith(_UNSUMMED))
    outside = [name for name in (*(name for _, name in pairs), *unsummed) if not is_inside(name)]
    if outside:
        raise ProxyByteError(
            f"{path} names {outside[0]!r}, which lies outside its folder: it is none of ours, remove it"
        )
    return Record(kind, {name: digest for digest, name in pairs}, made_of, unsummed)


def is_inside(name: str) -> bool:
    """Whether a name that stands in a file leads to something below its folder: a foreign one may say anything."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not PurePosixPath(name).is_absolute() and ".." not in parts and "\0" not in name


def verify_folder(folder: Path, suffixes: tuple[str, ...] = ("",)) -> None:
    """Compare files with the record of the folder that they were written in: ``folder`` itself or one above it.

    Args:
        folder: what is loaded; of a record above it, only what concerns this folder is compared.
        suffixes: endings of the files to compare; all by default.

    Raises:
        ProxyByteError: if a file is missing or is not what was written; the message names it.
    """
    _check_indexes(folder)
    if os.environ.get(SKIP_VARIABLE):
        return
    folder = folder.resolve()
    for home in (folder, folder.parent):
        record = read_record(home)
        prefix = "" if home == folder else f"{folder.name}/"
        if record is None or not any(name.startswith(prefix) for name in record.sums):
            continue
        for name, digest in record.sums.items():
            if name.startswith(prefix) and name.endswith(suffixes):
                _check(home / name, digest)
        return


def _check_indexes(folder: Path) -> None:
    """Refuse an index of weights (``model.safetensors.index.json``) that leads out of its folder, whoever wrote it.

    Raises:
        ProxyByteError: naming the index and the file.
    """
    for index in folder.glob("*.index.json"):
        try:
            names = json.loads(index.read_bytes())["weight_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # whoever loads it says what is wrong with it
        outside = [name for name in names if not isinstance(name, str) or not is_inside(name)]
        if outside:
            raise ProxyByteError(f"{index} names {outside[0]!r}, which lies outside its folder: take other weights")


def verify_files(folder: Path, names: Iterable[str]) -> None:
    """:func:`verify_folder` of these files alone; the record of ``folder`` must be in it.

    Raises:
        ProxyByteError: if a file is missing or is not what was written; the message names it.
    """
    record = read_record(folder)
    if os.environ.get(SKIP_VARIABLE) or record is None:
        return
    for name in names:
        if name in record.sums:
            _check(folder / name, record.sums[name])


def _check(path: Path, digest: str) -> None:
    try:
        same = file_digest(path) == digest
    except OSError as error:
        raise ProxyByteError(f"{path} cannot be read ({error.strerror}): make or copy its folder again") from error
    if not same:
        raise ProxyByteError(
            f"{path} is not what was written (its SHA-256 differs from {SUMS}): make or copy its folder again; if it "
            f"was changed on purpose, remove {SUMS} or pass {SKIP_FLAG}"
        )


def digest_of_input(*parts: Path | str) -> str:
    """A digest of what an output is made of: the content of files and folders, and words."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"{part}\n".encode())
            continue
        files = files_in(part) if part.is_dir() else {part.name: part}
        for name, path in sorted(files.items()):
            if path.is_file():
                digest.update(f"{name} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def sealed_json(fields: Mapping[str, Any], *, indent: int | None = None) -> str:
    """A JSON object of ``fields`` that holds the SHA-256 of all that it says, under :data:`SEAL`."""
    return json.dumps({**fields, SEAL: _seal_of(fields)}, indent=indent) + "\n"


def unsealed_json(content: bytes | str) -> dict[str, Any]:
    """The fields of :func:`sealed_json`.

    Raises:
        ValueError: if it is no JSON object, or not what was written.
    """
    fields = json.loads(content)
    if not isinstance(fields, dict) or fields.pop(SEAL, None) != _seal_of(fields):
        raise ValueError("its content does not match its SHA-256")
    return fields


def _seal_of(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def seal(content: bytes) -> bytes:
    """``content`` under a line that holds its SHA-256, for a file that an interrupted command goes on from."""
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def unseal(sealed: bytes) -> bytes:
    """What :func:`seal` took.

    Raises:
        ValueError: if it was cut short or altered.
    """
    digest, _, content = sealed.partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("its content does not match its SHA-256")
    return content
