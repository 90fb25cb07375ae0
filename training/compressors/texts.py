"""Documents for fitting and reporting: corpus folders, parquet files, text files, or folders of text files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from proxybyte.errors import ProxyByteError

MEGABYTE = 1_000_000

_Text = TypeVar("_Text", str, bytes)


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


@dataclass(frozen=True)
class TextSource:
    """Where documents come from.

    Attributes:
        paths: corpus folders (``proxybyte corpus``), parquet files with a column ``text``, text files, or folders of
            text files.
        split: which shards of a corpus folder, ``"train"`` or ``"validation"``.
        max_bytes: stop after the document that passes this much; None for everything.
    """

    paths: Sequence[Path]
    split: str = "train"
    max_bytes: int | None = None

    def read(self, progress: str = "") -> Iterator[bytes]:
        """Each document's bytes, in the order of the paths; empty ones are left out.

        Args:
            progress: what the bar on stderr says; no bar if empty.

        Raises:
            ProxyByteError: for a path that is absent or cannot be read, or if there is no text at all.
        """
        files = [file for path in self.paths for file in _files(Path(path), self.split)]
        total = 0
        with tqdm(desc=progress, total=self.max_bytes, unit="B", unit_scale=True, delay=1, disable=not progress) as bar:
            for file in files:
                for document in _documents(file):
                    if self.max_bytes is not None and total >= self.max_bytes:
                        return
                    if document:
                        total += len(document)
                        bar.update(len(document))
                        yield document
        if not total:
            raise ProxyByteError(f"{', '.join(map(str, self.paths))}: holds no text ({self.split})")


def _files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ProxyByteError(f"{path}: no such file or folder")
    if any(path.glob("*.parquet")):
        shards = sorted(path.glob(f"{split}-*.parquet"))
        if not shards:
            raise ProxyByteError(f"{path}: holds no {split}-*.parquet; make a corpus with 'proxybyte corpus'")
        return shards
    inside = (file.relative_to(path) for file in path.rglob("*"))
    return sorted(path / file for file in inside if (path / file).is_file() and not any(map(_is_no_text, file.parts)))


def _is_no_text(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__"


def _documents(file: Path) -> Iterator[bytes]:
    try:
        if file.suffix != ".parquet":
            yield file.read_bytes()
            return
        with pq.ParquetFile(file) as table:
            if "text" not in table.schema_arrow.names:
                raise ProxyByteError(f"{file}: has no column 'text', only {', '.join(table.schema_arrow.names)}")
            for batch in table.iter_batches(batch_size=256, columns=["text"]):
                for text in batch.column(0).cast(pa.large_binary()):
                    yield text.as_py() or b""
    except (OSError, pa.ArrowException) as error:
        raise ProxyByteError(f"{file}: cannot be read ({error})") from None
