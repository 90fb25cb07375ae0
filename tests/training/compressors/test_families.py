"""What every family promises: any document comes back, damaged folders and foreign codes are refused by name."""

import gzip
import json
import subprocess
import sys
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors import FAMILIES, Compressor, code_dtype, encode_one, load_compressor, short_names
from proxybyte.training.compressors.bpe_train import Split
from proxybyte.training.compressors.codebook import CodebookCompressor
from proxybyte.training.compressors.codebook.growth import GrowthRule, grow
from proxybyte.training.compressors.neural import NeuralCompressor, NeuralSettings
from proxybyte.training.compressors.token_bytes import Order, TokenBytesCompressor

NAMES = [
    "bpe",
    "gzip",
    "bits-1",
    "bits-2",
    "bits-4",
    "bits-8",
    "bits-16",
    "token-bytes",
    "token-bytes-gray",
    "codebook",
    "neural",
]
WITH_BORDERS = [name for name in NAMES if name != "gzip"]
DOCUMENTS = st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | st.binary().map(lambda data: data + b"\0")


@pytest.fixture(scope="module")
def compressors(trained, small_lm) -> dict[str, Compressor]:
    bpe = trained[Split.CODE]
    made = {
        "bpe": bpe,
        "token-bytes": TokenBytesCompressor(bpe, Order.PLAIN),
        "token-bytes-gray": TokenBytesCompressor(bpe, Order.GRAY),
        "codebook": CodebookCompressor(grow(small_lm, GrowthRule(1000))),
        # Documents that it codes badly stay raw unless asked otherwise; here every one is to come back.
        "neural": NeuralCompressor(small_lm, NeuralSettings(least_bytes_per_symbol=0.0)),
    }
    return {name: made.get(name) or load_compressor(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50, deadline=None)
@given(document=DOCUMENTS)
def test_any_document_comes_back(compressors, name, document):
    compressor = compressors[name]
    codes = encode_one(compressor, document)
    assert codes.ndim == 1 and codes.dtype == code_dtype(compressor.num_symbols)
    assert codes.size == 0 or codes.max() < compressor.num_symbols
    assert compressor.decode(codes) == document


@pytest.mark.parametrize("name", NAMES)
def test_edge_documents_and_real_files_come_back_in_order(compressors, name, held_out):
    documents = [b"", b"\0", b"a", b"a\0", b"ab\0", b"\0\0\0", b"\xff" * 3, "naïve 東京 🙂".encode(), *held_out]
    codes = compressors[name].encode_batch(documents)
    assert [compressors[name].decode(code) for code in codes] == documents


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "token-bytes" in name else ()) for name in NAMES]
)
def test_ten_megabytes_of_one_byte_come_back(compressors, name):
    document = b" " * 10_000_000
    assert compressors[name].decode(encode_one(compressors[name], document)) == document


@pytest.mark.parametrize("name", NAMES)
def test_the_same_document_gives_the_same_code_alone_and_in_a_batch(compressors, name, held_out):
    batch = compressors[name].encode_batch(held_out)
    assert np.array_equal(batch[1], encode_one(compressors[name], held_out[1]))


@pytest.mark.parametrize("name", WITH_BORDERS)
@settings(max_examples=50, deadline=None)
@given(document=DOCUMENTS)
def test_borders_rise_to_the_length_of_the_document(compressors, name, document):
    codes = encode_one(compressors[name], document)
    ends = compressors[name].borders(codes)
    assert ends.shape == codes.shape
    assert (np.diff(ends) >= 0).all()
    assert (int(ends[-1]) if ends.size else 0) == len(document)


@pytest.mark.parametrize(
    ("name", "per_unit"), [("bits-1", 8), ("bits-2", 4), ("bits-4", 2), ("bits-8", 1), ("token-bytes", 2)]
)
def test_a_border_counts_only_bytes_that_are_spelled_in_full(compressors, name, per_unit):
    compressor = compressors[name]
    codes = encode_one(compressor, b"import os\n")
    for n, end in enumerate(compressor.borders(codes).tolist(), start=1):
        assert end == len(compressor.decode(codes[: n // per_unit * per_unit]))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_compressor_loads_as_the_same(compressors, name, tmp_path, held_out):
    compressors[name].save(tmp_path / "saved")
    loaded = load_compressor(tmp_path / "saved")
    assert (loaded.name, loaded.family, loaded.num_symbols) == (
        compressors[name].name,
        compressors[name].family,
        compressors[name].num_symbols,
    )
    assert np.array_equal(encode_one(loaded, held_out[0]), encode_one(compressors[name], held_out[0]))
    assert isinstance(loaded, Compressor) and loaded.lossless


@pytest.mark.parametrize("name", NAMES)
def test_a_symbol_out_of_range_is_refused_with_its_place(compressors, name):
    compressor = compressors[name]
    for bad in (compressor.num_symbols, -1):
        with pytest.raises(
            ProxyByteError, match=rf"code {bad} at position 1 is not in 0 to {compressor.num_symbols - 1}"
        ):
            compressor.decode(np.array([0, bad]))
    with pytest.raises(ProxyByteError, match="one-dimensional array of integers"):
        compressor.decode(np.array([0.5]))


@pytest.mark.parametrize(
    ("name", "codes", "message"),
    [
        ("gzip", [1, 2, 3], "no gzip file"),
        ("gzip", list(gzip.compress(b"abc"))[:-1], "cut short"),
        ("gzip", [*gzip.compress(b"abc"), 0], "1 codes follow the end"),
        ("bits-1", [1] * 9, "9 codes are no whole number of bytes"),
        ("bits-4", [1], "1 codes are no whole number of bytes"),
        ("bits-16", [0x4142], "does not end a document"),
        ("bits-16", [], "does not end a document"),
        ("token-bytes", [0], "1 codes are no whole number of tokens"),
        ("token-bytes", [0, 1, 255, 255], "position 2 are the number of no token"),
    ],
)
def test_codes_that_spell_nothing_are_refused(compressors, name, codes, message):
    with pytest.raises(ProxyByteError, match=message):
        compressors[name].decode(np.array(codes))


def test_gzip_is_a_gzip_file_without_time_or_place():
    codes = encode_one(load_compressor("gzip"), b"text " * 50)
    assert gzip.decompress(codes.tobytes()) == b"text " * 50
    assert codes[4:8].tolist() == [0] * 4 and codes[9] == 255


def test_gray_coded_neighbours_in_spelling_differ_in_one_bit(compressors):
    gray = compressors["token-bytes-gray"]
    order = sorted(range(gray.bpe.num_symbols), key=lambda code: gray.bpe.spelled[code])
    numbers = [int.from_bytes(gray._spread(np.array([code])).tobytes()) for code in order]
    assert len(set(numbers)) == len(numbers)
    assert all((one ^ other).bit_count() == 1 for one, other in pairwise(numbers))


def test_bits_are_the_documents_own():
    assert encode_one(load_compressor("bits-1"), b"\xa0").tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
    assert encode_one(load_compressor("bits-2"), b"\xa0").tolist() == [2, 2, 0, 0]
    assert encode_one(load_compressor("bits-4"), b"\xa5").tolist() == [10, 5]
    assert encode_one(load_compressor("bits-16"), b"abc").tolist() == [0x6162, 0x6301]


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_or_altered_folder_is_refused_by_file_name(compressors, name, tmp_path):
    compressors[name].save(tmp_path)
    for path in sorted(path for path in tmp_path.iterdir() if path.name != "SHA256SUMS"):
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], b"", b"\xff\xfe not json"):
            path.write_bytes(damaged)
            with pytest.raises(ProxyByteError, match=path.name):
                load_compressor(tmp_path)
        if path.name != "compressor.json":
            path.unlink()
            with pytest.raises(ProxyByteError, match=path.name):
                load_compressor(tmp_path)
        path.write_bytes(content)
    assert load_compressor(tmp_path).name == compressors[name].name


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_another_family_is_refused(compressors, name, tmp_path):
    compressors[name].save(tmp_path)
    other = "gzip" if name != "gzip" else "bpe"
    with pytest.raises(ProxyByteError, match=f"holds a {compressors[name].family} compressor, not {other}"):
        FAMILIES[other].load_class().load(tmp_path)


def test_manifests_that_lack_a_field_or_hold_nonsense_are_refused(tmp_path):
    manifest = tmp_path / "compressor.json"
    for content, message in [
        ([], "names no family"),
        ({"family": "gzp"}, "unknown family 'gzp'; the nearest name is 'gzip'"),
        ({"family": "bits", "width": 3}, "bits-3: a symbol has 1, 2, 4, 8, 16 bits"),
        ({"family": "bpe"}, "lists no checksum of tokenizer.json"),
    ]:
        manifest.write_text(json.dumps(content))
        with pytest.raises(ProxyByteError, match=message):
            load_compressor(tmp_path)


def test_unknown_names_give_the_nearest():
    with pytest.raises(ProxyByteError, match="nearest name is 'bits-16'"):
        load_compressor("bit-16")
    with pytest.raises(ProxyByteError, match="nearest name is 'gzip'"):
        load_compressor("gzipp")
    with pytest.raises(ProxyByteError, match="the names are"):
        load_compressor("/no/such/folder")
    with pytest.raises(ProxyByteError, match="is a family, not a compressor"):
        load_compressor("token-bytes")


def test_every_short_name_loads_what_it_names():
    assert [load_compressor(name).name for name in short_names()] == short_names()


def test_a_folder_without_a_compressor_is_refused(tmp_path):
    with pytest.raises(ProxyByteError, match=r"neither compressor\.json"):
        load_compressor(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ProxyByteError, match=r"tokenizer\.json: is no tokenizer\.json"):
        load_compressor(tmp_path)


def test_a_tokenizer_folder_and_its_file_load_as_bpe(compressors, tmp_path):
    (tmp_path / "tokenizer.json").write_text(compressors["bpe"].tokenizer_json)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_compressor(path)
        assert loaded.name == tmp_path.name and not loaded.slow_reason
        assert np.array_equal(encode_one(loaded, b"import os"), encode_one(compressors["bpe"], b"import os"))


def test_the_families_load_without_torch():
    program = (
        "import sys\n"
        "from proxybyte.training.compressors import load_compressor, short_names\n"
        "[load_compressor(name) for name in short_names()]\n"
        "import proxybyte.training.compressors.bpe, proxybyte.training.commands.compressor_fit\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_published_form_of_gzip_is_what_zlib_writes_on_unix(tmp_path, held_out):
    ours, published = load_compressor("gzip"), load_compressor("gzip-published")
    published.save(tmp_path)
    assert json.loads((tmp_path / "compressor.json").read_text())["form"] == "published"
    for compressor in (published, load_compressor(tmp_path)):
        assert (compressor.name, compressor.lossless) == ("gzip-published", True)
        for document in held_out[:5]:
            deflate = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
            expected = bytearray(deflate.compress(document) + deflate.flush())
            expected[9] = 3
            codes = encode_one(compressor, document)
            assert codes.astype(np.uint8).tobytes() == bytes(expected)
            assert np.flatnonzero(codes != encode_one(ours, document)).tolist() == [9]
            assert compressor.decode(codes) == document


def test_the_published_form_of_bits_16_ends_without_a_further_symbol(tmp_path):
    published = load_compressor("bits-16-published")
    published.save(tmp_path)
    for compressor in (published, load_compressor(tmp_path)):
        assert (compressor.name, compressor.lossless, compressor.num_symbols) == ("bits-16-published", False, 1 << 16)
        assert encode_one(compressor, b"abcd").tolist() == [0x6162, 0x6364]
        assert encode_one(compressor, b"abc").tolist() == [0x6162, 0x6300]
        assert encode_one(compressor, b"").tolist() == []
        assert compressor.decode(np.array([0x6162, 0x6364])) == b"abcd"
        assert compressor.borders(np.array([0x6162])) is None


def test_the_published_order_of_token_bytes_is_that_of_decoded_text(compressors, tmp_path):
    bpe = compressors["bpe"]
    published = TokenBytesCompressor(bpe, Order.GRAY_PUBLISHED)
    published.save(tmp_path)
    tokenizer = Tokenizer.from_str(bpe.tokenizer_json)
    by_text = sorted(range(bpe.num_symbols), key=lambda code: tokenizer.decode([code], skip_special_tokens=False))
    expected = {code: place ^ (place >> 1) for place, code in enumerate(by_text)}
    ours, loaded = TokenBytesCompressor(bpe, Order.GRAY), load_compressor(tmp_path)
    assert loaded.name == "bpe-1500-code-bytes-gray-published"
    differ = 0
    for document in (b"def name(self):\n", "naïve 東京".encode(), bytes(range(128, 256))):
        tokens = encode_one(bpe, document)
        numbers = encode_one(loaded, document).reshape(-1, 2).astype(int) @ [256, 1]
        assert numbers.tolist() == [expected[int(token)] for token in tokens]
        assert loaded.decode(encode_one(loaded, document)) == document
        differ += int((encode_one(ours, document) != encode_one(loaded, document)).sum())
    assert differ
