"""The compiled codebook: a greedy longest-match parse, exactly, and bytes that always come back."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors.codebook import CodebookCompressor, Trie
from proxybyte.training.compressors.codebook import automaton as automaton_module
from proxybyte.training.compressors.codebook.automaton import Automaton
from proxybyte.training.compressors.codebook.compressor import FILE
from proxybyte.training.compressors.codebook.trie import LONGEST, extend, keep
from proxybyte.training.compressors.protocol import Compressor, encode_one, write_folder

STRINGS = [b"de", b"def", b"def ", b"se", b"sel", b"self", b"re", b"ret", b"aa", b"aaa", b"\n ", b"\n  ", b"\xff\xfe"]
SINGLE_BYTES = Trie(np.arange(256, dtype=np.uint32), np.arange(256, dtype=np.uint8))


def trie_of(strings: list[bytes]) -> Trie:
    """The trie of some strings and their prefixes."""
    closed = {string[:end] for string in strings for end in range(2, len(string) + 1)}
    ordered = sorted(closed, key=lambda string: (len(string), string))
    number = {bytes([b]): b for b in range(256)} | {string: 256 + i for i, string in enumerate(ordered)}
    prefixes = np.array([number[string[:-1]] for string in ordered], np.int64)
    return extend(SINGLE_BYTES, prefixes, np.array([string[-1] for string in ordered], np.int64))


def longest_matches(trie: Trie, text: bytes) -> list[int]:
    """The greedy parse, by its definition."""
    number = {trie.spellings.string(node): node for node in range(len(trie))}
    longest = max(map(len, number))
    codes, place = [], 0
    while place < len(text):
        end = max(e for e in range(place + 1, min(place + longest, len(text)) + 1) if text[place:e] in number)
        codes.append(number[text[place:end]])
        place = end
    return codes


def standard_library(count: int) -> list[bytes]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    return [path.read_bytes() for path in sorted(folder.glob("*.py"))[:count]]


@pytest.fixture(scope="module")
def codebook() -> CodebookCompressor:
    return CodebookCompressor(trie_of([*STRINGS, b"a" * 40, b" " * 100]))


# Few letters, so that matches, near misses and repetitions are common.
TEXTS = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(str.encode),
    st.lists(st.sampled_from([b"a", b"d", b"de", b"def ", b"self", b"ret", b"\n  ", b"\0"])).map(b"".join),
)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=6))
def test_any_bytes_come_back_and_the_parse_is_the_greedy_one(documents):
    compressor = CodebookCompressor(trie_of(STRINGS))
    for document, codes in zip(documents, compressor.encode_batch(documents), strict=True):
        assert codes.dtype == np.uint16
        assert codes.tolist() == longest_matches(compressor.trie, document)
        assert compressor.decode(codes) == document


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=30),
    st.lists(st.integers(0, 400), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_block_walk_equals_the_plain_walk(strings, sizes, random):
    """Blocks of any texts and any dictionary are mended to the sequential parse, documents beginning anywhere."""
    automaton = Automaton(trie_of([*strings, b"abababab", b"aaaaa"]))
    alphabet = b"ab" + b"".join(strings)
    documents = [bytes(random.choices(alphabet, k=size)) if random.random() < 0.7 else b"a" * size for size in sizes]
    text, starts = np.frombuffer(b"".join(documents), np.uint8), np.cumsum([0, *sizes[:-1]])
    plain = np.full(len(text), 256, np.uint16)
    automaton._walk_on(text, starts, plain, 0)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LANES": 4, "OVERLAP": 3, "SHORTEST_BLOCK": 5, "SEQUENTIAL_BELOW": 1}.items():
            patch.setattr(automaton_module, name, value)
        if len(text):
            assert np.array_equal(automaton.states(text, starts), plain)


def test_real_files_come_back_by_the_block_walk(codebook):
    documents = [*standard_library(40), b"", "Grüße, 世界 🙂".encode() * 3000]
    codes = codebook.encode_batch(documents)
    assert [codebook.decode(code) for code in codes] == documents
    assert sum(map(len, documents)) > automaton_module.SEQUENTIAL_BELOW * 4
    for document, code in zip(documents[:3], codes[:3], strict=True):
        assert code.tolist() == longest_matches(codebook.trie, document)


def test_ten_megabytes_of_one_byte_come_back(codebook):
    text = b"a" * 10_000_003
    codes = encode_one(codebook, text)
    assert codebook.decode(codes) == text
    assert len(codes) == -(-len(text) // 40)


def test_a_document_codes_alike_alone_and_among_others(codebook):
    documents = standard_library(12)
    together = codebook.encode_batch(documents)
    for document, code in zip(documents, together, strict=True):
        assert np.array_equal(encode_one(codebook, document), code)


def test_documents_beyond_one_part_are_split_between_parts(codebook, monkeypatch):
    documents = [b"self", b"", b"return" * 50, b"def f(", b"a" * 9]
    whole = codebook.encode_batch(documents)
    monkeypatch.setattr("proxybyte.training.compressors.codebook.compressor._LEAST_PART_BYTES", 10)
    assert [code.tolist() for code in codebook.encode_batch(documents)] == [code.tolist() for code in whole]


def test_borders_are_where_symbols_end(codebook):
    text = standard_library(1)[0]
    codes = encode_one(codebook, text)
    borders = codebook.borders(codes)
    assert borders[-1] == len(text)
    assert [text[a:b] for a, b in zip([0, *borders], borders, strict=False)] == [
        codebook.decode(codes[i : i + 1]) for i in range(len(codes))
    ]


def test_more_than_two_to_the_sixteen_symbols_are_wider():
    pairs = np.arange(65_536)
    triples = np.arange(300)
    trie = extend(SINGLE_BYTES, np.append(pairs >> 8, 256 + triples), np.append(pairs & 255, triples & 255))
    compressor = CodebookCompressor(trie)
    text = np.random.default_rng(0).integers(0, 256, 50_001).astype(np.uint8).tobytes()
    codes = encode_one(compressor, text)
    assert codes.dtype == np.uint32 and codes.max() > 65_535
    assert compressor.decode(codes) == text


def test_keep_numbers_anew_and_spells_the_same():
    trie = trie_of(STRINGS)
    kept = np.ones(len(trie), bool)
    kept[[node for node in range(len(trie)) if trie.spellings.string(node) in (b"sel", b"self", b"aaa")]] = False
    smaller = keep(trie, kept)
    strings = {smaller.spellings.string(node) for node in range(len(smaller))}
    assert strings == {trie.spellings.string(node) for node in np.flatnonzero(kept)}


def test_a_saved_codebook_loads_equal_and_needs_no_torch(codebook, tmp_path):
    codebook.save(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from proxybyte.training.compressors.codebook.compressor import CodebookCompressor\n"
        "c = CodebookCompressor.load(Path(sys.argv[1])); print(c.encode_batch([b'def self'])[0].tolist(), c.name)\n"
        "assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"{encode_one(codebook, b'def self').tolist()} {codebook.name}"
    assert isinstance(codebook, Compressor)


def test_truncated_and_foreign_files_are_refused_by_name(codebook, tmp_path):
    codebook.save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-100])
    with pytest.raises(ProxyByteError, match=FILE):
        CodebookCompressor.load(tmp_path)
    write_folder(tmp_path, "codebook", {FILE: b"PK\x03\x04 something else"})
    with pytest.raises(ProxyByteError, match=f"{FILE}: is no safetensors"):
        CodebookCompressor.load(tmp_path)
    write_folder(tmp_path / "foreign", "bpe", {})
    with pytest.raises(ProxyByteError, match="bpe"):
        CodebookCompressor.load(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("prefixes", "last_bytes", "reason"),
    [
        (np.arange(255), np.arange(255), "at least 256"),
        (np.append(np.arange(256), 256), np.append(np.arange(256), 0), "node 256"),
        (np.append(np.arange(256), [7, 7]), np.append(np.arange(256), [1, 1]), "twice"),
        (np.zeros(256), np.arange(256), "single bytes"),
    ],
)
def test_a_table_that_is_no_trie_is_refused(prefixes, last_bytes, reason):
    with pytest.raises(ProxyByteError, match=reason):
        Trie(prefixes.astype(np.uint32), last_bytes.astype(np.uint8))


def test_a_string_longer_than_the_longest_is_refused():
    chain = np.append(65, np.arange(256, 256 + LONGEST - 1))
    trie = extend(SINGLE_BYTES, chain, np.full(len(chain), 65))
    with pytest.raises(ProxyByteError, match=f"more than {LONGEST}"):
        _ = trie.spellings


@pytest.mark.parametrize("codes", [np.array([5, 100_000]), np.array([5, -1])])
def test_a_symbol_out_of_range_is_refused(codebook, codes):
    with pytest.raises(ProxyByteError, match=f"codebook-.*: code {codes[1]} at position 1"):
        codebook.decode(codes)
    with pytest.raises(ProxyByteError, match="integers"):
        codebook.decode(codes.astype(float))
