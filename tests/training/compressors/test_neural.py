"""The neural compressor: windows by their definition, segments that keep edits local, one code for any batch."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_neural import naive_codes

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors import load_compressor
from proxybyte.training.compressors.neural import Ending, NeuralCompressor, NeuralSettings
from proxybyte.training.compressors.neural import compressor as compressor_module
from proxybyte.training.compressors.neural.byte_lm import ByteLM
from proxybyte.training.compressors.neural.windows import SegmentRule, WindowCoder, segments, stretches
from proxybyte.training.compressors.protocol import CannotEncode, Compressor, encode_one, write_folder

TEXTS = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=60).map(str.encode),
    st.lists(st.sampled_from([b"def ", b"self", b"\n    ", b"return ", b"()", b"\n", b"\xf0\x9f"])).map(b"".join),
)
EVERYTHING = {"least_bytes_per_symbol": 0.0}


class Oracle:
    """Intervals and names of strings in unbounded integers, one string at a time, straight from the definition."""

    def __init__(self, lm: ByteLM, bits: int):
        self.lm, self.points, self.known = lm, 1 << bits + 16, {}

    def frequencies(self, string: bytes) -> list[int]:
        if string not in self.known:
            state = self.lm.fresh(1)
            for byte in string:
                state = self.lm.step(state, torch.tensor([byte]))
            self.known[string] = self.lm.frequencies(state)[0].tolist()
        return self.known[string]

    def children(self, string: bytes, low: int, high: int) -> list[tuple[int, int]]:
        borders = [low]
        for total in np.cumsum(self.frequencies(string)).tolist():
            borders.append(low + (high - low) * total // 65_536)
        return list(pairwise(borders))

    def meaning(self, code: int) -> bytes:
        """The longest string whose interval holds the whole cell ``code``."""
        string, interval, cell = b"", (0, self.points), (code << 16, code + 1 << 16)
        while True:
            inside = [
                (byte, part)
                for byte, part in enumerate(self.children(string, *interval))
                if part[0] <= cell[0] and cell[1] <= part[1]
            ]
            if not inside:
                return string
            string, interval = string + bytes([inside[0][0]]), inside[0][1]

    def cells(self, string: bytes) -> range:
        """The whole cells in the interval of ``string``."""
        interval = (0, self.points)
        for end, byte in enumerate(string):
            interval = self.children(string[:end], *interval)[byte]
        return range(-(-interval[0] // 65_536), interval[1] // 65_536)

    def width(self, string: bytes) -> Fraction:
        """Exact probability of ``string``."""
        share = Fraction(1)
        for end, byte in enumerate(string):
            share *= Fraction(self.frequencies(string[:end])[byte], 65_536)
        return share


@pytest.fixture(scope="module")
def coder(small_lm) -> WindowCoder:
    return WindowCoder(small_lm, 16, Ending.STOP)


def test_every_small_code_means_what_the_oracle_says(small_lm):
    coder, oracle = WindowCoder(small_lm, 8, Ending.STOP), Oracle(small_lm, 8)
    assert coder.spell(range(256)) == [oracle.meaning(code) for code in range(256)]
    assert coder.spell(range(256, 512)) == [bytes([byte]) for byte in range(256)]


def test_a_window_is_the_longest_beginning_that_a_code_means(small_lm):
    """Brute force over all cells and all beginnings, with 8 bits."""
    coder, oracle = WindowCoder(small_lm, 8, Ending.STOP), Oracle(small_lm, 8)
    first_code = {}
    for code in range(256):
        first_code.setdefault(oracle.meaning(code), code)
    texts = sorted({b"the next line", b"self.x", b"    return", b"\nimport", b"e", b"\x00\x01", b"zq!", b"s"})
    for text, window in zip(texts, coder.first_windows(texts), strict=True):
        named = [end for end in range(1, len(text) + 1) if text[:end] in first_code]
        expected = (first_code[text[: max(named)]], max(named)) if named else (256 + text[0], 1)
        assert (window.code, window.length, window.cut) == (*expected, False)


def test_a_window_of_16_bits_takes_what_has_probability_for_it(small_lm, coder):
    oracle = Oracle(small_lm, 16)
    texts = sorted({b"    def close(self):", b"\n\nclass Queue:", b"\xff\xfe\x00", b"aaaaaaaaaaaaaaaaaaaaaaa"})
    for text, window in zip(texts, coder.first_windows(texts), strict=True):
        taken = text[: window.length]
        assert oracle.meaning(window.code) == taken
        assert window.code in oracle.cells(taken)
        assert len(oracle.cells(taken)) == pytest.approx(float(oracle.width(taken) * 65_536), abs=1.5)
        if window.length < len(text):
            assert not oracle.cells(text[: window.length + 1])


def test_the_cut_ending_takes_one_byte_more(small_lm, coder):
    cut = WindowCoder(small_lm, 16, Ending.CUT)
    texts = sorted({b"    def close(self, timeout=None):", b"\n\nclass Queue(object):", b"ab"})
    for text, stop, over in zip(texts, coder.first_windows(texts), cut.first_windows(texts), strict=True):
        oracle = Oracle(small_lm, 16)
        assert over.cut == (over.length > stop.length) == (stop.length < len(text))
        assert over.length == stop.length + over.cut
        taken = text[: over.length]
        assert not over.cut or not oracle.cells(taken)
        assert over.code in oracle.cells(taken[:-1]) or over.code in oracle.cells(taken)


@settings(max_examples=15, deadline=None)
@given(st.lists(TEXTS, max_size=4))
def test_any_bytes_come_back_with_any_window(small_lm, documents):
    for bits in (8, 12, 16, 24):
        compressor = NeuralCompressor(small_lm, NeuralSettings(bits=bits, **EVERYTHING))
        for document, codes in zip(documents, compressor.encode_batch(documents), strict=True):
            assert codes.max(initial=0) < compressor.num_symbols
            assert compressor.decode(codes) == document
            assert compressor.borders(codes).tolist() == np.cumsum([len(b) for b in compressor._spell(codes)]).tolist()


def test_codes_are_those_of_the_plain_coder(small_lm, held_out):
    for settings_ in (NeuralSettings(**EVERYTHING), NeuralSettings(24, threshold=8, jump=2, **EVERYTHING)):
        documents = [held_out[0][:600], held_out[1][:400], b"\xff\x00" * 20]
        batched = NeuralCompressor(small_lm, settings_).encode_batch(documents)
        assert [codes.tolist() for codes in batched] == [naive_codes(small_lm, settings_, d) for d in documents]


def test_codes_do_not_depend_on_batch_order_or_memory(small_lm, held_out, monkeypatch):
    documents = [document[:5000] for document in held_out[:6]]
    compressor = NeuralCompressor(small_lm, NeuralSettings(**EVERYTHING))
    expected = [codes.tolist() for codes in compressor.encode_batch(documents)]
    assert [codes.tolist() for codes in compressor.encode_batch(documents[::-1])] == expected[::-1]
    monkeypatch.setitem(compressor_module._LANES, "cpu", 37)
    monkeypatch.setattr(compressor_module, "CACHED", 10)
    fresh = NeuralCompressor(small_lm, NeuralSettings(**EVERYTHING))
    assert [encode_one(fresh, document).tolist() for document in documents] == expected


def test_real_files_come_back(small_lm, held_out):
    compressor = NeuralCompressor(small_lm, NeuralSettings(**EVERYTHING))
    for document, codes in zip(held_out, compressor.encode_batch(held_out), strict=True):
        assert compressor.decode(codes) == document
    assert compressor.lossless and compressor.cut_windows == 0
    assert isinstance(compressor, Compressor)


def test_ten_megabytes_of_one_byte_come_back(small_lm):
    compressor = NeuralCompressor(small_lm, NeuralSettings())
    text = b" " * 10_000_000
    assert compressor.decode(encode_one(compressor, text)) == text


def test_badly_coded_documents_stay_raw(small_lm):
    noise = np.random.default_rng(0).integers(0, 256, 500).astype(np.uint8).tobytes()
    (code,) = NeuralCompressor(small_lm, NeuralSettings()).encode_batch([noise])
    assert isinstance(code, CannotEncode) and "bytes a symbol" in str(code)


def test_cut_windows_are_counted_and_do_not_decode(small_lm, held_out):
    compressor = NeuralCompressor(small_lm, NeuralSettings(ending="cut", threshold=8, jump=8, **EVERYTHING))
    codes = compressor.encode_batch(held_out[:3])
    assert compressor.windows == sum(map(len, codes)) and 0 < compressor.cut_windows < compressor.windows
    stop = NeuralCompressor(small_lm, NeuralSettings(threshold=8, jump=8, **EVERYTHING))
    assert sum(map(len, codes)) < sum(map(len, stop.encode_batch(held_out[:3])))
    assert not compressor.lossless and compressor.borders(codes[0]) is None
    with pytest.raises(ProxyByteError, match="cuts windows"):
        compressor.decode(codes[0])


@settings(deadline=None)
@given(st.one_of(TEXTS, st.binary(max_size=900), st.text("ab\n", max_size=900).map(str.encode)))
def test_stretches_are_the_document(document):
    parts = stretches(document)
    assert b"".join(parts) == document
    assert all(1 <= len(part) <= 256 for part in parts)
    assert all(b"\n" not in part.lstrip(b"\n") for part in parts)


def test_segments_open_where_entropy_says(small_lm):
    lines = sorted({b"    def close(self):", b"\n        return self._loop", b"x", b"import os"})
    none = segments(small_lm, SegmentRule(8, 8), lines)
    assert none == [[line] for line in lines]
    for rule in (SegmentRule(4.0, 8), SegmentRule(8, 0.5), SegmentRule(3.5, 1.0)):
        for line, cut in zip(lines, segments(small_lm, rule, lines), strict=True):
            assert b"".join(cut) == line
            state, before, opens = small_lm.fresh(1), None, []
            for place, byte in enumerate(line):
                entropy = int(small_lm.entropies(state))
                if place and (entropy > rule.threshold * 64 or entropy - before > rule.jump * 64):
                    opens.append(place)
                state, before = small_lm.step(state, torch.tensor([byte])), entropy
            assert list(np.cumsum([len(part) for part in cut])[:-1]) == opens


def test_an_edit_changes_its_own_line_only(small_lm, held_out):
    compressor = NeuralCompressor(small_lm, NeuralSettings(**EVERYTHING))
    lines = held_out[0][:4000].splitlines(keepends=True)
    where = lines.index(max(lines[10:-10], key=len))
    edited = [*lines[:where], lines[where][:20] + b"Q" + lines[where][20:], *lines[where + 1 :]]
    before, after = (encode_one(compressor, b"".join(part)).tolist() for part in (lines, edited))
    same_start = next(i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
    same_end = next(i for i, pair in enumerate(zip(before[::-1], after[::-1], strict=False)) if pair[0] != pair[1])
    changed = compressor.decode(np.array(before[same_start : len(before) - same_end]))
    assert len(changed) <= len(lines[where]) + 1 and same_end > 100


def test_a_saved_compressor_loads_equal(small_lm, held_out, tmp_path):
    compressor = NeuralCompressor(small_lm, NeuralSettings(bits=12, threshold=5, jump=2), made={"why": "test"})
    compressor.save(tmp_path)
    again = load_compressor(tmp_path)
    assert (again.settings, again.name, again.made) == (compressor.settings, "neural-12", {"why": "test"})
    assert encode_one(again, held_out[0]).tolist() == encode_one(compressor, held_out[0]).tolist()


def test_damaged_folders_are_refused_by_name(small_lm, tmp_path):
    compressor = NeuralCompressor(small_lm, NeuralSettings())
    compressor.save(tmp_path)
    path = tmp_path / "m1.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ProxyByteError, match=r"m1\.safetensors: .* truncated"):
        NeuralCompressor.load(tmp_path)
    write_folder(tmp_path, "neural", {"m1.safetensors": b"PK"}, settings={"bits": 16})
    with pytest.raises(ProxyByteError, match=r"m1\.safetensors: is no safetensors"):
        NeuralCompressor.load(tmp_path)
    for wrong in ({"bits": 17}, {"beats": 16}, {"ending": "middle"}, {"threshold": -1}):
        write_folder(tmp_path, "neural", {"m1.safetensors": b"PK"}, settings=wrong)
        with pytest.raises(ProxyByteError, match=r"compressor\.json"):
            NeuralCompressor.load(tmp_path)


@pytest.mark.parametrize("codes", [[3, 65_536], [3, -1]])
def test_a_symbol_out_of_range_is_refused(small_lm, codes):
    with pytest.raises(ProxyByteError, match=f"neural-16: code {codes[1]} at position 1"):
        NeuralCompressor(small_lm, NeuralSettings()).decode(np.array(codes))
