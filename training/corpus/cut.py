"""Documents cut into pieces, so that a run of few symbols shows many places of a corpus."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from proxybyte.training.texts.records import Advance, Document, Reader, Skip, digest_of


@dataclass(frozen=True)
class CutReader:
    """A source whose documents come in pieces; a piece keeps the key, or the document's identity
    where it has none, so that a package stays in one split, and so does a document.

    Attributes:
        whole: the source.
        max_bytes: longest piece. A piece ends with a line where that leaves it more than half as long, otherwise
            between two characters.
    """

    whole: Reader
    max_bytes: int

    def stored_bytes(self) -> int:
        """See :class:`~.records.Reader`."""
        return self.whole.stored_bytes()

    def read(self, advance: Advance) -> Iterator[Document | Skip]:
        """See :class:`~.records.Reader`."""
        for item in self.whole.read(advance):
            if isinstance(item, Skip):
                yield item
                continue
            whole = digest_of(item.text)
            start = 0
            while start < len(item.text):
                end = cut_after(item.text, start, self.max_bytes)
                name = item.source if end - start == len(item.text) else f"{item.source}@{start}"
                yield replace(item, text=item.text[start:end], source=name, whole=whole)
                start = end


def cut_after(text: bytes, start: int, max_bytes: int) -> int:
    """Where the piece of ``text`` that begins at ``start`` ends."""
    end = start + max_bytes
    if end >= len(text):
        return len(text)
    line = text.rfind(b"\n", start + max_bytes // 2, end) + 1
    if line:
        return line
    # Continuation bytes of UTF-8 are 10xxxxxx; three at most follow a first one.
    border = next((place for place in range(end, end - 4, -1) if text[place] & 0xC0 != 0x80), end)
    return border if border > start else end
