"""What readers of one file share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from proxybyte.training.corpus.records import Advance, Document, Skip, TextRules, damaged


class FileReader(ABC):
    """Documents of one file.

    Attributes:
        unreadable: errors that say that the file cannot be read on.
    """

    unreadable: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def __init__(self, path: Path, rules: TextRules):
        self._path = path
        self._rules = rules

    def stored_bytes(self) -> int:
        """Bytes of the file as it lies on disk."""
        return self._path.stat().st_size

    def read(self, advance: Advance) -> Iterator[Document | Skip]:
        """Every document, and what is left out and why.

        Raises:
            ProxyByteError: if the file is damaged.
        """
        try:
            yield from self._read(advance)
        except self.unreadable as error:
            raise damaged(str(self._path), error) from error

    @abstractmethod
    def _read(self, advance: Advance) -> Iterator[Document | Skip]: ...
