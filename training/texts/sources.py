"""Documents for the commands that take text: the one reader of files, folders, corpora and prepared folders.

What a file is follows from its name alone, wherever it lies: a table (:data:`TABLES`) is read row by row, anything
else is one document. The Python packages that this interpreter can see are a source too.
"""

import logging
import os
import random
import stat
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from proxybyte.artefacts import CORPUS_REPORT, PREPARED_MANIFEST, Split
from proxybyte.errors import ProxyByteError
from proxybyte.progress import Progress
from proxybyte.training.remote import identity, is_remote
from proxybyte.training.texts.jsonl import JsonLinesReader
from proxybyte.training.texts.records import (
    DEFAULT_SUFFIXES,
    PART_BYTES,
    Advance,
    Document,
    LeftOut,
    Reader,
    Reason,
    Skip,
    TextRules,
    listed,
    printable,
)
from proxybyte.training.texts.stored import BLOCK, COMPRESSIONS, FileReader, open_stored
from proxybyte.training.texts.tables import DatasetName, DatasetReader, ParquetReader, is_saved_dataset

TABLES: dict[str, Callable[..., FileReader]] = {
    ".jsonl": JsonLinesReader,
    ".ndjson": JsonLinesReader,
    ".parquet": ParquetReader,
}
"""Reader of each kind of table, plain or with one of the endings in ``COMPRESSIONS``."""
OTHER_TABLES = (".json", ".csv", ".tsv", ".arrow", ".feather", ".orc", ".avro", ".xlsx")
OTHER_ARCHIVES = (".zip", ".tar", ".tgz", ".bz2", ".xz", ".lz4", ".7z")
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

    Hidden folders, ``__pycache__``, ``node_modules`` and nested ``site-packages`` are not entered. They, and files of
    other endings, come last, counted by ending.
    """
    if is_remote(root):
        yield from _walk_remote(root, suffixes)
        return
    failures: list[OSError] = []
    passed_over: Counter[str] = Counter()
    for folder, folders, files in os.walk(root, onerror=failures.append):
        while failures:
            yield _unreadable(root, failures.pop())
        inside = sorted(name for name in folders if not name.startswith(".") and name not in _NEVER)
        passed_over.update(f"{name}/" for name in folders if name not in inside)
        linked = [name for name in inside if Path(folder, name).is_symlink()]
        folders[:] = [name for name in inside if name not in linked]
        for name in linked:
            yield Skip(_printable(root, Path(folder, name)), Reason.LINKED_FOLDER)
        for name in sorted(files):
            if name.endswith(tuple(suffixes)):
                yield _look_at(root, Path(folder, name))
            else:
                passed_over[ending_of(name)] += 1
    while failures:
        yield _unreadable(root, failures.pop())
    for ending, count in passed_over.items():
        yield Skip(printable(root.name), Reason.PASSED_OVER, printable(ending), count)


def _walk_remote(root: Path, suffixes: Sequence[str]) -> Iterator[FoundFile | Skip]:
    """:func:`walk` beyond this machine, where nothing is linked."""
    passed_over: Counter[str] = Counter()
    sizes: dict[str, Any] = root.fs.find(root.path, detail=True)  # type: ignore[attr-defined]
    home = str(root.path).rstrip("/")  # type: ignore[attr-defined]
    for full, info in sorted(sizes.items(), key=lambda item: item[0].split("/")):
        relative = PurePosixPath(full.removeprefix(f"{home}/"))
        shut = next((part for part in relative.parts[:-1] if part.startswith(".") or part in _NEVER), None)
        if shut is not None:
            passed_over[f"{shut}/"] = 1
        elif relative.name.endswith(tuple(suffixes)):
            yield FoundFile(root / str(relative), printable(str(relative)), int(info["size"]))
        else:
            passed_over[ending_of(relative.name)] += 1
    for ending, count in passed_over.items():
        yield Skip(printable(root.name), Reason.PASSED_OVER, printable(ending), count)


def ending_of(name: str) -> str:
    """By what files that were passed over are counted: the suffix, with the one before it where it is an archive's."""
    path = PurePosixPath(name)
    if path.suffix.lower() in COMPRESSIONS or path.suffix.lower() in OTHER_ARCHIVES:
        return "".join(path.suffixes[-2:])
    return path.suffix or "without suffix"


def table_kind(name: str) -> str | None:
    """The key in :data:`TABLES` of a file of that name, ``None`` where it is no table."""
    path = PurePosixPath(name.lower())
    kind = path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix
    return kind if kind in TABLES else None


def file_reader(path: Path, rules: TextRules) -> FileReader:
    """Reader of one file that was named itself.

    Raises:
        ProxyByteError: if it is no file, or a table or archive of a kind that is not read.
    """
    if not path.exists():
        raise ProxyByteError(f"{path} does not exist: no such file or folder")
    kind = table_kind(path.name)
    if kind is not None and path.is_file():
        return TABLES[kind](path, rules)
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    if not path.is_file() or inner.suffix.lower() in (*OTHER_TABLES, *OTHER_ARCHIVES):
        raise ProxyByteError(
            f"{path} is neither a folder nor a .jsonl, .ndjson or .parquet table (plain, .gz or .zst) nor a text file: "
            "write its rows as one of these"
        )
    return TextFileReader(path, rules)


class TextFileReader(FileReader):
    """A file that is one document: plain, .gz or .zst."""

    def _read(self, advance: Advance) -> Iterator[Document | Skip]:
        size = self.stored_bytes()
        with self._path.open("rb", buffering=BLOCK) as stored:
            text = open_stored(stored, self._path).read(self._rules.max_bytes + 1) if size else b""
        advance(size)
        if not text:
            yield Skip(self._name, Reason.EMPTY_FILE)
        elif len(text) > self._rules.max_bytes:
            yield Skip(self._name, Reason.TOO_LONG, f"more than {self._rules.max_bytes:,} bytes")
        else:
            yield Document(text, self._name, None)


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
    """Every matching file below some roots: tables by row, any other one document, whose key is its package."""

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
            kind = table_kind(file.path.name)
            if kind is not None and file.size:
                yield from TABLES[kind](file.path, self._rules, file.relative).read(advance)
            elif file.path.suffix.lower() in COMPRESSIONS and file.size:
                for item in TextFileReader(file.path, self._rules, file.relative).read(advance):
                    yield replace(item, key=self._key(file)) if isinstance(item, Document) else item
            else:
                yield self._read_file(file)
                advance(file.size)

    def parts(self) -> Sequence[Reader]:
        """What the walk left out, then runs of files of :data:`PART_BYTES` together, or parts of a table."""
        made: list[Reader] = [self._of([], self._skips)] if self._skips else []
        run: list[FoundFile] = []
        size = 0
        for file in self._files:
            kind = table_kind(file.path.name)
            if run and (kind is not None or size + file.size > PART_BYTES):
                made.append(self._of(run, []))
                run, size = [], 0
            if kind is not None and file.size:
                made += TABLES[kind](file.path, self._rules, file.relative).parts()
            else:
                run.append(file)
                size += file.size
        return [*made, self._of(run, [])] if run else made

    def identity(self) -> str:
        """See :class:`~.records.Reader`."""
        files = (f"{file.relative} {identity(file.path)}" for file in self._files)
        return "\n".join([*files, *map(str, self._skips)])

    def _of(self, files: list[FoundFile], skips: list[Skip]) -> "TreeReader":
        part = TreeReader([], (), self._rules)
        part._files, part._skips = files, skips
        return part

    def holds_tables(self) -> bool:
        """Whether any matching file is read by row."""
        return any(table_kind(file.path.name) for file in self._files)

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
        return Document(text, file.relative, self._key(file))

    def _key(self, file: FoundFile) -> str | None:
        return None if self._rules.by_document else package_of(file.relative)


def folder_reader(root: Path, suffixes: Sequence[str], rules: TextRules) -> TreeReader:
    """Reader of a folder.

    Raises:
        ProxyByteError: if no file matches; the sentence names the suffixes that are there.
    """
    reader = TreeReader([root], suffixes, rules)
    if reader.stored_bytes() == 0:
        endings = Counter(ending_of(item.path.name) for item in walk(root, ("",)) if isinstance(item, FoundFile))
        raise ProxyByteError(
            f"{root} is no prepared folder or corpus, and holds no file with text that ends in {' or '.join(suffixes)} "
            f"(it holds: {listed(endings) or 'nothing'}); choose with --suffixes, or name JSONL and parquet files "
            "themselves"
        )
    if rules.key_column is not None and not reader.holds_tables():
        raise ProxyByteError(f"--key-column is for tables, but {root} is a folder: it is split by package")
    return reader


def python_roots() -> list[Path]:
    """The standard library and every installed-packages folder on ``sys.path``."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    sites = [Path(entry) for entry in sys.path if Path(entry).name in SITE_FOLDERS and Path(entry).is_dir()]
    return list(dict.fromkeys(root.resolve() for root in (standard, *sites)))


def python_packages_reader(rules: TextRules) -> TreeReader:
    """Reader of the Python source that is installed here: standard library and packages."""
    return TreeReader(python_roots(), DEFAULT_SUFFIXES, rules)


_LOG = logging.getLogger(__name__)
_Text = TypeVar("_Text", str, bytes)
_EXAMPLES = 5
_PLACES = 64
"""From how many places of the sources a sample is drawn, where there are so many."""


def batches(texts: Iterable[_Text], size: int) -> Iterator[list[_Text]]:
    """``texts`` in order, in lists that close with the text that brings them to ``size`` characters or bytes."""
    batch: list[_Text] = []
    total = 0
    for text in texts:
        batch.append(text)
        total += len(text)
        if total >= size:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def open_path(path: Path, suffixes: Sequence[str], rules: TextRules) -> Reader:
    """Reader of a file or of a folder of files.

    Raises:
        ProxyByteError: if there is none, or nothing in it can be read.
    """
    return folder_reader(path, suffixes, rules) if path.is_dir() else file_reader(path, rules)


@dataclass(frozen=True)
class TextSource:
    """Where documents come from.

    Attributes:
        paths: corpus folders (``proxybyte corpus``), prepared folders, datasets that ``save_to_disk`` wrote, tables,
            text files, or folders of them.
        split: of a corpus, prepared folder or dataset, ``"train"`` or ``"validation"``.
        max_bytes: stop after the document that passes this much; None for everything.
        sample_seed: draw what is read from all over the sources, by this seed, not from their beginning.
        suffixes: endings of the files that are taken from other folders.
        rules: what counts as a document.
        left_out: filled in by :meth:`read`.
    """

    paths: Sequence[Path]
    split: str = "train"
    max_bytes: int | None = None
    sample_seed: int | None = None
    suffixes: Sequence[str] = DEFAULT_SUFFIXES
    rules: TextRules = field(default_factory=TextRules)
    left_out: LeftOut = field(default_factory=lambda: LeftOut(_EXAMPLES))

    def read(self, progress: str = "") -> Iterator[bytes]:
        """Each document's bytes, in the order of the paths.

        What is left out or passed over is counted in ``left_out``, and logged at the end.

        Args:
            progress: what the bar on stderr says; no bar if empty.

        Raises:
            ProxyByteError: for a path that is absent or cannot be read, or if there is no text at all.
        """
        readers = [reader for path in self.paths for reader in self._open(path if is_remote(path) else Path(path))]
        total = 0
        with Progress(
            desc=progress, total=self.max_bytes, unit="B", unit_scale=True, delay=1, disable=not progress
        ) as bar:
            for item in self._items(readers):
                if not isinstance(item, Document):
                    self.left_out.add(item)
                    continue
                if self.max_bytes is not None and total >= self.max_bytes:
                    break
                total += len(item.text)
                bar.update(len(item.text))
                yield item.text
        if not total:
            raise self.left_out.nothing_else(f"{', '.join(map(str, self.paths))} ({self.split})")
        for line in self.left_out.lines():
            _LOG.info("%s", line)

    def _items(self, readers: Sequence[Reader]) -> Iterator[Document | Skip]:
        """What the readers yield: all of it in order, or the beginnings of parts that are drawn."""
        if self.sample_seed is None or self.max_bytes is None:
            for reader in readers:
                yield from reader.read(lambda _: None)
            return
        parts = [part for reader in readers for part in reader.parts()]
        random.Random(self.sample_seed).shuffle(parts)
        left = self.max_bytes
        for place, part in enumerate(parts):
            share, given = -(-left // min(len(parts) - place, max(1, _PLACES - place))), 0
            for item in part.read(lambda _: None):
                yield item
                given += len(item.text) if isinstance(item, Document) else 0
                if given >= share:
                    break
            left -= given
            if left <= 0:
                return

    def _open(self, path: Path) -> list[Reader]:
        if (path / PREPARED_MANIFEST).is_file():
            if not (path / self.split).is_dir():
                raise ProxyByteError(f"{path} has no split {self.split!r}")
            return [DatasetReader(DatasetName(str(path / self.split)), TextRules(max_bytes=self.rules.max_bytes))]
        if is_saved_dataset(path):
            return [DatasetReader(DatasetName(str(path), split=self.split), self.rules)]
        if (path / CORPUS_REPORT).is_file() or any(any(path.glob(f"{split}-*.parquet")) for split in Split):
            shards = sorted(path.glob(f"{self.split}-*.parquet"))
            if not shards:
                raise ProxyByteError(f"{path}: holds no {self.split}-*.parquet; make a corpus with 'proxybyte corpus'")
            return [ParquetReader(shard, TextRules(max_bytes=self.rules.max_bytes)) for shard in shards]
        return [open_path(path, self.suffixes, self.rules)]
