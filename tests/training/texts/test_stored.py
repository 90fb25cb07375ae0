"""Compressed files as gzip and zstd write and read them, and lines as an editor counts them."""

import gzip
import time
import zlib

import pytest
import zstandard

from proxybyte.errors import ProxyByteError
from proxybyte.training.texts import numbered_lines
from proxybyte.training.texts.stored import open_stored

TEXT = b"".join(b"line %d\n" % number for number in range(50_000))


def content_of(path) -> bytes:
    with path.open("rb") as stored:
        return open_stored(stored, path).read()


@pytest.mark.parametrize("window", [20, 27, 28, 31])
def test_long_windows_of_zstandard_are_read(tmp_path, window):
    """``zstd --long=31`` writes such a frame; its header alone asks for the window."""
    parameters = zstandard.ZstdCompressionParameters(window_log=window, enable_ldm=True)
    frames = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(frames.compress(TEXT) + frames.flush())
    assert zstandard.get_frame_parameters(path.read_bytes()).window_size >= 1 << window
    assert content_of(path) == TEXT


@pytest.mark.parametrize(
    "stored",
    [
        gzip.compress(TEXT) + bytes(512),
        gzip.compress(TEXT[:1000]) + bytes(3) + gzip.compress(TEXT[1000:]) + bytes(1 << 20),
        gzip.compress(b"") + gzip.compress(TEXT) + gzip.compress(b""),
        b"".join(gzip.compress(TEXT[start : start + 100], 1) for start in range(0, len(TEXT), 100)),
    ],
    ids=["zeros behind", "zeros between", "empty members", "many members"],
)
def test_what_gzip_reads_is_read(tmp_path, stored):
    path = tmp_path / "a.gz"
    path.write_bytes(stored)
    started = time.perf_counter()
    assert content_of(path) == gzip.decompress(stored) == TEXT
    assert time.perf_counter() - started < 5


def test_skippable_and_empty_frames_of_zstandard_are_read(tmp_path):
    skip = (0x184D2A50).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"pad"
    path = tmp_path / "a.zst"
    compress = zstandard.compress
    path.write_bytes(skip + compress(TEXT[:999]) + skip + compress(b"") + compress(TEXT[999:]) + skip)
    assert content_of(path) == TEXT


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
@pytest.mark.parametrize("kept", [1, 9, 1000, -1])
def test_a_file_that_ends_early_or_goes_on_with_something_else_is_damaged(tmp_path, compress, kept):
    path = tmp_path / ("a.gz" if compress is gzip.compress else "a.zst")
    whole = compress(TEXT)
    for stored in (whole[:kept], whole + b"garbage"):
        path.write_bytes(stored)
        with pytest.raises(OSError, match=r"\w"):
            content_of(path)


def test_a_flipped_bit_in_a_gzip_file_is_noticed(tmp_path):
    stored = bytearray(gzip.compress(TEXT))
    stored[len(stored) // 2] ^= 1
    path = tmp_path / "a.gz"
    path.write_bytes(stored)
    with pytest.raises(OSError, match=r"\w"):
        content_of(path)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_a_line_ends_at_a_line_feed_alone(tmp_path, character):
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"\ufeffa{character}b\r\n\n \t\n\nc\n".encode())
    assert list(numbered_lines(path, 100)) == [(1, f"a{character}b".encode()), (5, b"c")]


def test_a_line_of_the_limit_is_kept_and_a_longer_one_is_not(tmp_path):
    path = tmp_path / "a.jsonl"
    for end in (b"\n", b"\r\n"):
        path.write_bytes(b"\xef\xbb\xbf12345" + end + b"123456" + end + b"1" * 1000 + end + b"12345")
        assert list(numbered_lines(path, 5)) == [(1, b"12345"), (2, None), (3, None), (4, b"12345")]


def test_blank_lines_are_stepped_over_without_an_object_each(tmp_path):
    """20 million lines read one by one would take more than the limit on any machine."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = b"\n" * 1_000_000
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"".join(deflate.compress(block) for _ in range(20)) + deflate.compress(b"x\n") + deflate.flush())
    started = time.process_time()
    assert list(numbered_lines(path, 100)) == [(20_000_001, b"x")]
    assert time.process_time() - started < 3


def test_damage_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(TEXT)[:-9])
    with pytest.raises(ProxyByteError, match=r"a\.jsonl\.gz, line 5000[01], cannot be read"):
        list(numbered_lines(path, 100))
