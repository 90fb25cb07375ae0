"""Documents for the commands that take text: the one reader of files, folders, corpora and prepared folders."""

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from proxybyte.artefacts import CORPUS_REPORT, PREPARED_MANIFEST, Split
from proxybyte.errors import ProxyByteError
from proxybyte.progress import Progress
from proxybyte.training.remote import is_remote
from proxybyte.training.texts.records import DEFAULT_SUFFIXES, Document, LeftOut, Reader, Skip, TextRules
from proxybyte.training.texts.tables import DatasetName, DatasetReader, ParquetReader, is_saved_dataset
from proxybyte.training.texts.trees import file_reader, folder_reader

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
