import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxybyte import encode_bytes
from proxybyte.streaming import ByteIteratorStreamer, ByteStreamer

PROMPT = torch.tensor([[12, 64 + 0xC3]])


def stream(data: bytes, chunk: int = 1, errors: str = "replace") -> list[str]:
    pieces: list[str] = []
    streamer = ByteStreamer(pieces.append, errors=errors)
    streamer.put(PROMPT)
    for symbols in torch.from_numpy(encode_bytes(data)).split(chunk):
        streamer.put(symbols)
    streamer.end()
    return pieces


@given(st.text(), st.integers(1, 5))
def test_pieces_are_whole_characters_and_add_up_to_the_text(text, chunk):
    pieces = stream(text.encode(), chunk)
    assert "".join(pieces) == text
    if chunk == 1:
        assert pieces == list(text)


@given(st.binary())
def test_bytes_that_are_no_utf8_are_shown_as_python_shows_them(data):
    assert "".join(stream(data)) == data.decode(errors="replace")


@given(st.binary())
def test_surrogateescape_gives_every_byte_back(data):
    assert "".join(stream(data, errors="surrogateescape")).encode(errors="surrogateescape") == data


def test_half_a_character_waits_and_is_shown_broken_only_at_the_end():
    pieces: list[str] = []
    streamer = ByteStreamer(pieces.append)
    streamer.put(PROMPT)
    streamer.put(torch.tensor([64 + 0xE2]))
    streamer.put(torch.tensor([64 + 0x82]))
    assert pieces == []
    streamer.end()
    assert pieces == ["\ufffd"]


def test_sentinels_are_left_out_and_the_prompt_can_be_shown():
    pieces: list[str] = []
    streamer = ByteStreamer(pieces.append, skip_prompt=False)
    streamer.put(torch.tensor([[12, 64 + 0x61]]))
    streamer.put(torch.tensor([13]))
    streamer.put(torch.tensor([2]))
    streamer.end()
    assert pieces == ["a"]


def test_a_streamer_can_be_used_again():
    pieces: list[str] = []
    streamer = ByteStreamer(pieces.append)
    for _ in range(2):
        streamer.put(PROMPT)
        streamer.put(torch.tensor([64 + 0x62]))
        streamer.put(torch.tensor([64 + 0xC3]))
        streamer.end()
    assert pieces == ["b", "\ufffd", "b", "\ufffd"]


def test_without_a_sink_it_prints(capsys):
    streamer = ByteStreamer()
    streamer.put(PROMPT)
    streamer.put(torch.from_numpy(encode_bytes("é".encode())))
    streamer.end()
    assert capsys.readouterr().out == "é"


def test_a_batch_is_refused():
    with pytest.raises(ValueError, match="batch of 2"):
        ByteStreamer().put(torch.zeros(2, 3, dtype=torch.long))


def test_the_iterator_ends_when_generation_does():
    streamer = ByteIteratorStreamer(timeout=10)

    def produce():
        streamer.put(PROMPT)
        for symbol in encode_bytes("aé🙂".encode()):
            streamer.put(torch.tensor([symbol]))
        streamer.end()

    worker = threading.Thread(target=produce)
    worker.start()
    assert list(streamer) == ["a", "é", "🙂"]
    worker.join()
