"""The measures against their definitions, spelled out slowly; the report as table, JSON and plots."""

import json
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors import encode_one, load_compressor
from proxybyte.training.compressors.bpe import BpeCompressor
from proxybyte.training.compressors.bpe_train import Split
from proxybyte.training.compressors.measures import (
    EditedSamples,
    collisions,
    delete_characters,
    frequencies,
    stability,
)
from proxybyte.training.compressors.regroup import RegroupCompressor
from proxybyte.training.compressors.report import ReportOptions, as_table, compare, write_report
from proxybyte.training.compressors.token_bytes import Order, TokenBytesCompressor


def levenshtein(one: list[int], other: list[int]) -> int:
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


@pytest.mark.parametrize("name", ["gzip", "bits-4", "bits-16", "bpe"])
def test_stability_is_the_mean_of_normalised_levenshtein_distances(name, trained, held_out):
    compressor = trained[Split.CODE] if name == "bpe" else load_compressor(name)
    edited = delete_characters(held_out, 12, characters=60)
    expected = []
    for before, after in zip(edited.before, edited.after, strict=True):
        one, other = encode_one(compressor, before).tolist(), encode_one(compressor, after).tolist()
        expected.append(levenshtein(one, other) / max(len(one), len(other)))
    found = stability(compressor, edited)
    assert found.distance == pytest.approx(np.mean(expected))
    assert found.standard_error == pytest.approx(np.std(expected) / math.sqrt(12))
    assert found.samples == 12


def test_the_same_text_is_at_distance_zero_and_gzip_is_the_least_stable(trained, held_out):
    same = delete_characters(held_out, 50, share=0.0)
    assert same.before == same.after
    edited = delete_characters(held_out, 200)
    distance = {}
    for compressor in (load_compressor("gzip"), load_compressor("bits-1"), trained[Split.CODE]):
        assert stability(compressor, same).distance == 0
        distance[compressor.family] = stability(compressor, edited).distance
    assert distance["gzip"] > 0.85 > 0.6 > distance["bpe"] > distance["bits"]


@given(texts=st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=4), share=st.floats(0, 1))
def test_deletions_take_that_share_of_the_characters_and_keep_the_rest_in_order(texts, share):
    edited = delete_characters([text.encode() for text in texts], 5, characters=20, share=share)
    for before, after in zip(edited.before, edited.after, strict=True):
        long, short = before.decode(), after.decode()
        assert 1 <= len(long) <= 20 and any(long in text for text in texts)
        assert len(long) - len(short) == round(share * len(long))
        rest = iter(long)
        assert all(character in rest for character in short)


def test_snippets_are_a_function_of_the_seed(held_out):
    assert delete_characters(held_out, 20, seed=3) == delete_characters(held_out, 20, seed=3)
    assert delete_characters(held_out, 20, seed=3) != delete_characters(held_out, 20, seed=4)


def test_snippets_need_text_that_is_utf8(held_out):
    assert delete_characters([b"\xff", held_out[0]], 3) == delete_characters([held_out[0]], 3)
    with pytest.raises(ProxyByteError, match="no document is UTF-8"):
        delete_characters([b"\xff\xfe"], 3)


@given(codes=st.lists(st.lists(st.integers(0, 9), max_size=30), min_size=1, max_size=4).filter(any))
def test_frequencies_equal_a_count(codes):
    counts = Counter(symbol for code in codes for symbol in code)
    total = counts.total()
    found = frequencies([np.array(code, dtype=np.uint8) for code in codes], 10)
    entropy = -sum(count / total * math.log2(count / total) for count in counts.values())
    assert found.used == len(counts) and found.used_share == len(counts) / 10
    assert found.entropy_bits == pytest.approx(entropy, abs=1e-12)
    shares = sorted((count / total for count in counts.values()), reverse=True)
    assert found.by_rank == [(rank, shares[rank - 1]) for rank in (1, 2, 4, 8) if rank <= len(shares)]


def test_collisions_equal_a_slow_count_over_token_bytes(trained, held_out):
    """The second byte of a token stands for every token that ends in it."""
    bpe = trained[Split.CODE]
    compressor = TokenBytesCompressor(bpe, Order.PLAIN)
    documents = held_out[:4]
    seen = defaultdict(Counter)
    for document in documents:
        for token in encode_one(bpe, document).tolist():
            seen[token % 256][bpe.spelled[token]] += 1
    ratios, others = [], 0
    for chunks in seen.values():
        (top, _), *rest = chunks.most_common()
        for chunk, count in rest:
            others += count
            shared = next(
                (n for n in range(min(len(top), len(chunk))) if top[n] != chunk[n]), min(len(top), len(chunk))
            )
            ratios.append(shared / max(len(top), len(chunk)))
    found = collisions(compressor, documents, [encode_one(compressor, document) for document in documents])
    assert found.chunks_per_symbol == pytest.approx(np.mean([len(chunks) for chunks in seen.values()]))
    assert found.most_chunks == max(len(chunks) for chunks in seen.values())
    assert found.rate == pytest.approx(others / sum(chunks.total() for chunks in seen.values()))
    assert found.prefix_ratio == pytest.approx(np.mean(ratios))


def test_bpe_symbols_stand_for_one_string_each_and_gzip_tells_nothing(trained, held_out):
    bpe, gzip = trained[Split.CODE], load_compressor("gzip")
    found = collisions(bpe, held_out[:2], bpe.encode_batch(held_out[:2]))
    assert (found.chunks_per_symbol, found.most_chunks, found.rate, found.prefix_ratio) == (1, 1, 0, None)
    assert collisions(gzip, held_out[:2], gzip.encode_batch(held_out[:2])) is None


@pytest.fixture(scope="module")
def report(trained, held_out):
    compressors = {"gzip": load_compressor("gzip"), "bits-4": load_compressor("bits-4"), "ours": trained[Split.CODE]}
    return compare(compressors, held_out, ReportOptions(samples=40, characters=100))


def test_the_report_holds_the_ratio_and_the_bits_that_follow_from_it(report, trained, held_out):
    n_bytes = sum(map(len, held_out))
    assert (report.n_bytes, report.n_documents) == (n_bytes, len(held_out))
    bits, bpe = report.compressors[1:]
    assert bits.bytes_per_symbol == 0.5 and bits.bpb_fixed == 8
    n_symbols = sum(map(len, trained[Split.CODE].encode_batch(held_out)))
    assert bpe.bytes_per_symbol == n_bytes / n_symbols
    assert bpe.bpb_unigram == pytest.approx(bpe.frequencies.entropy_bits * n_symbols / n_bytes)
    assert bpe.bpb_fixed == pytest.approx(math.log2(1500) * n_symbols / n_bytes)
    assert all(one.bpb_unigram <= one.bpb_fixed for one in report.compressors)
    assert [(one.refused, one.changed) for one in report.compressors] == [(0, 0)] * 3


def test_table_json_and_plots_show_every_compressor(report, tmp_path):
    table = as_table(report)
    files = write_report(report, tmp_path / "new" / "folder")
    saved = json.loads(files[0].read_text())
    for one, entry in zip(report.compressors, saved["compressors"], strict=True):
        assert any(
            line.startswith(f"{one.name} ") and f"{one.bytes_per_symbol:.3f}" in line for line in table.splitlines()
        )
        assert entry["name"] == one.name and entry["stability"]["distance"] == one.stability.distance
    assert len(files) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files[1:])


def upper_case_refused(trained) -> BpeCompressor:
    tokenizer = Tokenizer.from_str(trained[Split.CODE].tokenizer_json)
    tokenizer.normalizer = normalizers.Lowercase()
    return BpeCompressor(tokenizer.to_str(), "lower")


def test_refused_documents_are_counted_and_left_out_of_the_figures(trained):
    compressor = upper_case_refused(trained)
    documents = [b"all lower", b"Not lower", b"lower again"]
    (found,) = compare({"lower": compressor}, documents, ReportOptions(samples=0)).compressors
    symbols = sum(len(encode_one(compressor, text)) for text in (documents[0], documents[2]))
    assert found.refused == 1 and found.stability is None
    assert found.bytes_per_symbol == (len(documents[0]) + len(documents[2])) / symbols
    with pytest.raises(ProxyByteError, match="lower: can code none of the 1 documents"):
        compare({"lower": compressor}, documents[1:2], ReportOptions(samples=0))
    with pytest.raises(ProxyByteError, match="codes none of the 1 snippets"):
        stability(compressor, EditedSamples([b"UP"], [b"U"]))


class Forgetful(RegroupCompressor):
    """Loses the last byte of long documents, and cannot read short ones."""

    def decode(self, codes):
        document = super().decode(codes)
        if len(document) < 3:
            raise ProxyByteError("too short")
        return document[:10]


def test_documents_that_do_not_come_back_are_counted():
    documents = [b"ab", b"abcd", b"a longer one"]
    (found,) = compare({"forgetful": Forgetful(4)}, documents, ReportOptions(samples=0)).compressors
    assert (found.changed, found.refused) == (2, 0)
