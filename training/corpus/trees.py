"""Readers of source files: a folder, and the Python packages that this interpreter can see."""

import os
import stat
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from proxybyte.errors import ProxyByteError
from proxybyte.training.corpus.records import Advance, Document, Reason, Skip, TextRules, printable

SITE_FOLDERS = ("site-packages", "dist-packages")
VENDOR_FOLDERS = ("_vendor", "_vendored", "vendor", "vendored", "third_party")
_NEVER = ("__pycache__", "node_modules", *SITE_FOLDERS)


@dataclass(frozen=True)
class FoundFile:
    """A file below ``root``: ``relative`` is its POSIX path below it, fit for any text column; ``size`` in bytes."""

    path: Path
    relative: str
    size: int


def package_of(relative: str) -> str:
    """The package that a file belongs to: the first part of its path below the root.

    A vendored copy (``pip/_vendor/rich/text.py``) belongs to what was copied (``rich``), so that near-copies of one
    library stay in one split.
    """
    parts = PurePosixPath(relative).parts
    first = 0
    for place, part in enumerate(parts[:-1]):
        if part in VENDOR_FOLDERS and parts[place + 1] != "__init__.py":
            first = place + 1
    return parts[first].partition(".")[0] if first == len(parts) - 1 else parts[first]


def walk(root: Path, suffixes: Sequence[str]) -> Iterator[FoundFile | Skip]:
    """Files below ``root`` that end in one of ``suffixes``, in the order of their names.

    Hidden folders, ``__pycache__``, ``node_modules`` and nested ``site-packages`` are not entered.
    """
    failures: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=failures.append):
        while failures:
            yield _unreadable(root, failures.pop())
        inside = sorted(name for name in folders if not name.startswith(".") and name not in _NEVER)
        linked = [name for name in inside if Path(folder, name).is_symlink()]
        folders[:] = [name for name in inside if name not in linked]
        for name in linked:
            yield Skip(_printable(root, Path(folder, name)), Reason.LINKED_FOLDER)
        for name in sorted(files):
            if name.endswith(tuple(suffixes)):
                yield _look_at(root, Path(folder, name))
    while failures:
        yield _unreadable(root, failures.pop())


def _look_at(root: Path, path: Path) -> FoundFile | Skip:
    """A regular file with its size; a pipe or device, which could block a reader for ever, is left out."""
    try:
        status = path.stat()
    except OSError as error:
        return _unreadable(root, error)
    if not stat.S_ISREG(status.st_mode):
        return Skip(_printable(root, path), Reason.UNREADABLE, "not a regular file")
    return FoundFile(path, _printable(root, path), status.st_size)


def _unreadable(root: Path, error: OSError) -> Skip:
    return Skip(_printable(root, Path(os.fsdecode(error.filename))), Reason.UNREADABLE, error.strerror or str(error))


def _printable(root: Path, path: Path) -> str:
    return printable(path.relative_to(root).as_posix())


class TreeReader:
    """Every matching file below some roots, one document each; the key is the top-level package."""

    def __init__(self, roots: Sequence[Path], suffixes: Sequence[str], rules: TextRules):
        self._rules = rules
        found = [item for root in roots for item in walk(root, suffixes)]
        self._files = [item for item in found if isinstance(item, FoundFile)]
        self._skips = [item for item in found if isinstance(item, Skip)]

    def stored_bytes(self) -> int:
        """Bytes of all matching files."""
        return sum(file.size for file in self._files)

    def read(self, advance: Advance) -> Iterator[Document | Skip]:
        """What the walk left out, then every file."""
        yield from self._skips
        for file in self._files:
            yield self._read_file(file)
            advance(file.size)

    def _read_file(self, file: FoundFile) -> Document | Skip:
        if file.size == 0:
            return Skip(file.relative, Reason.EMPTY_FILE)
        if file.size > self._rules.max_bytes:  # not opened: it may be far larger than memory
            return Skip(file.relative, Reason.TOO_LONG, f"{file.size:,} bytes, at most {self._rules.max_bytes:,}")
        try:
            text = file.path.read_bytes()
        except OSError as error:
            return Skip(file.relative, Reason.UNREADABLE, error.strerror or str(error))
        if not text:
            return Skip(file.relative, Reason.EMPTY_FILE)
        return Document(text, file.relative, None if self._rules.by_document else package_of(file.relative))


def folder_reader(root: Path, suffixes: Sequence[str], rules: TextRules) -> TreeReader:
    """Reader of a folder.

    Raises:
        ProxyByteError: if no file matches; the sentence names the suffixes that are there.
    """
    reader = TreeReader([root], suffixes, rules)
    if reader.stored_bytes() == 0:
        endings = Counter("".join(item.path.suffixes[-2:]) for item in walk(root, ("",)) if isinstance(item, FoundFile))
        there = ", ".join(f"{count} {ending or 'without suffix'}" for ending, count in endings.most_common(3))
        raise ProxyByteError(
            f"{root} holds no file with text that ends in {' or '.join(suffixes)} (it holds: {there or 'nothing'}); "
            "choose with --suffixes, or name JSONL and parquet files themselves"
        )
    return reader


def python_roots() -> list[Path]:
    """The standard library and every installed-packages folder on ``sys.path``."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    sites = [Path(entry) for entry in sys.path if Path(entry).name in SITE_FOLDERS and Path(entry).is_dir()]
    return list(dict.fromkeys(root.resolve() for root in (standard, *sites)))


def python_packages_reader(rules: TextRules) -> TreeReader:
    """Reader of the Python source that is installed here: standard library and packages."""
    return TreeReader(python_roots(), (".py",), rules)
