"""Documents in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from proxybyte.training.corpus.collect import CutReader
from proxybyte.training.texts.records import Document, Reason, Skip


class Given:
    def __init__(self, *items):
        self.items = items

    def stored_bytes(self) -> int:
        return 7

    def read(self, advance):
        yield from self.items


def pieces(text: bytes, size: int) -> list[Document]:
    return list(CutReader(Given(Document(text, "a.py", "a")), size).read(lambda _: None))


@given(text=st.text(alphabet=st.sampled_from("ab\né東\U0001f642"), min_size=1, max_size=60), size=st.integers(8, 30))
def test_pieces_join_to_the_document_and_are_text_of_at_most_that_size(text, size):
    cut = pieces(text.encode(), size)
    assert b"".join(piece.text for piece in cut) == text.encode()
    assert all(0 < len(piece.text) <= size for piece in cut)
    assert "".join(piece.text.decode() for piece in cut) == text
    assert {piece.key for piece in cut} == {"a"}
    assert len({piece.source for piece in cut}) == len(cut)


@given(text=st.binary(min_size=1, max_size=60), size=st.integers(1, 9))
def test_any_bytes_can_be_cut(text, size):
    cut = pieces(text, size)
    assert b"".join(piece.text for piece in cut) == text
    assert all(0 < len(piece.text) <= size for piece in cut)


def test_a_piece_ends_with_a_line_where_one_does():
    assert [piece.text for piece in pieces(b"aaaa\nbbb\nc\nddd", 8)] == [b"aaaa\n", b"bbb\nc\n", b"ddd"]


def test_short_documents_and_what_was_left_out_pass():
    skip = Skip("b.py", Reason.NOT_UTF8)
    reader = CutReader(Given(Document(b"abc", "a.py", "a"), skip), 8)
    (document, left_out) = reader.read(lambda _: None)
    assert (document.text, document.source, document.key, left_out) == (b"abc", "a.py", "a", skip)
    assert reader.stored_bytes() == 7
