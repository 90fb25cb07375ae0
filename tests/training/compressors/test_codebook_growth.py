"""From M1 to a codebook: the likeliest strings, boundaries, reweighing, and the two commands."""

import heapq
from itertools import count, pairwise

import numpy as np
import pytest
import torch

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors import load_compressor
from proxybyte.training.compressors.codebook import Boundary, CodebookCompressor
from proxybyte.training.compressors.codebook.boundaries import joins
from proxybyte.training.compressors.codebook.growth import GrowthRule, grow
from proxybyte.training.compressors.codebook.reweigh import reweigh
from proxybyte.training.compressors.neural import NeuralCompressor, NeuralSettings
from proxybyte.training.compressors.protocol import encode_one


def likeliest_by_heap(lm, symbols: int) -> dict[bytes, float]:
    """The likeliest strings of two bytes or more, one string at a time, with their cost in bits."""
    order = count()
    first = 16 - lm.frequencies(lm.fresh(1))[0].double().log2()
    heap = [(float(cost), next(order), bytes([byte]), lm.fresh(1)) for byte, cost in enumerate(first)]
    heapq.heapify(heap)
    found: dict[bytes, float] = {}
    while len(found) < symbols - 256:
        cost, _, string, before = heapq.heappop(heap)
        if len(string) > 1:
            found[string] = cost
        state = lm.step(before, torch.tensor([string[-1]]))
        costs = cost + 16 - lm.frequencies(state)[0].double().log2()
        for byte in torch.argsort(costs)[:symbols].tolist():
            heapq.heappush(heap, (float(costs[byte]), next(order), string + bytes([byte]), state))
    return found


def strings_of(compressor_or_trie) -> list[bytes]:
    spellings = compressor_or_trie.spellings
    return [spellings.string(node) for node in range(len(compressor_or_trie))]


def test_growth_finds_the_likeliest_strings(small_lm):
    expected = likeliest_by_heap(small_lm, 456)
    strings = strings_of(grow(small_lm, GrowthRule(456)))
    assert strings[:256] == [bytes([byte]) for byte in range(256)]
    # Costs are rounded to 2^-16 of a bit, so strings of all but equal cost at the end may differ.
    assert len(set(strings[256:]) & expected.keys()) >= 199
    costs = [expected[string] for string in strings[256:] if string in expected]
    assert costs == sorted(costs) or max(a - b for a, b in pairwise(costs)) < 1e-4


def test_growth_does_not_depend_on_its_batches(small_lm, monkeypatch):
    whole = grow(small_lm, GrowthRule(1500))
    monkeypatch.setattr("proxybyte.training.compressors.codebook.growth.EXPANDED_AT_ONCE", 50)
    assert set(strings_of(grow(small_lm, GrowthRule(1500)))) == set(strings_of(whole))


@pytest.mark.parametrize("boundary", [Boundary.LINE, Boundary.PRETOKEN])
def test_no_symbol_spans_a_boundary_even_after_reweighing(small_lm, sources, boundary):
    allowed = joins(boundary)
    grown = grow(small_lm, GrowthRule(1500, boundary))
    for trie in (grown, reweigh(grown, sources[:8], boundary, rounds=3)):
        assert len(trie) == 1500
        assert all(allowed[a, b] for string in strings_of(trie) for a, b in pairwise(string))


def test_boundaries_are_where_they_should_be():
    line, pretoken = joins(Boundary.LINE), joins(Boundary.PRETOKEN)
    assert joins(Boundary.NONE).all()
    for pair, in_line, in_token in [
        (b"a\n", False, False),
        (b"\n\n", True, True),
        (b"\n ", True, True),
        (b"  ", True, True),
        (b" a", True, True),
        (b" (", True, True),
        (b"a ", True, False),
        (b"a(", True, False),
        (b"(a", True, False),
        (b"a_", True, True),
        (b"a1", True, False),
        (b"12", True, True),
        (b"\nd", True, False),
        (b"\xc3\xa9", True, True),
        (b"):", True, True),
    ]:
        assert (line[pair[0], pair[1]], pretoken[pair[0], pair[1]]) == (in_line, in_token), pair


def test_entropy_boundaries_end_symbols_where_m1_is_uncertain(small_lm):
    rule = GrowthRule(400, Boundary.ENTROPY, threshold=4.0, jump=8)
    for string in strings_of(grow(small_lm, rule))[256:]:
        state = small_lm.fresh(1)
        for byte in string[:-1]:
            state = small_lm.step(state, torch.tensor([byte]))
            assert int(small_lm.entropies(state)) <= 4.0 * 64


def test_too_few_allowed_strings_are_an_error(small_lm):
    with pytest.raises(ProxyByteError, match="lower symbols"):
        grow(small_lm, GrowthRule(5000, Boundary.ENTROPY, threshold=0.0))
    with pytest.raises(ProxyByteError, match="256 or more"):
        GrowthRule(255)


def test_symbols_are_single_bytes_at_the_least(small_lm):
    assert strings_of(grow(small_lm, GrowthRule(256))) == [bytes([byte]) for byte in range(256)]


def test_reweighing_codes_held_out_text_in_fewer_symbols(small_lm, sources, held_out):
    grown = grow(small_lm, GrowthRule(2000))
    better = reweigh(grown, sources, Boundary.NONE)
    before, after = (sum(map(len, CodebookCompressor(trie).encode_batch(held_out))) for trie in (grown, better))
    assert len(better) == len(grown)
    assert after < 0.95 * before
    compressor = CodebookCompressor(better)
    assert compressor.decode(encode_one(compressor, held_out[0])) == held_out[0]


def test_reweighing_counts_no_pair_across_documents(small_lm):
    """A string that only occurs where one document ends and the next begins is not wanted."""
    documents = [b"zqzq", b"QZQZ"] * 50
    better = reweigh(grow(small_lm, GrowthRule(300)), documents, Boundary.NONE, rounds=6)
    strings = strings_of(better)
    assert b"zqzq" in strings and not any(b"qQ" in string or b"Zz" in string for string in strings)


def test_the_commands_fit_and_compile(sources, held_out, tmp_path, capsys):
    text = tmp_path / "text.py"
    text.write_bytes(b"".join(sources[:5]))
    fit = f"compressor fit neural --corpus {text} --width 16 --steps 5 --batch 8 --context 8 --out {tmp_path / 'm1'}"
    assert main(fit.split()) == 0
    compiled = f"compressor compile {tmp_path / 'm1'} --symbols 400 --reweigh {text} --rounds 2 --out {tmp_path / 'cb'}"
    assert main(compiled.split()) == 0
    assert "codebook-400" in capsys.readouterr().out
    codebook = load_compressor(tmp_path / "cb")
    assert (codebook.num_symbols, codebook.made["reweighed_bytes"]) == (400, text.stat().st_size)
    assert codebook.decode(encode_one(codebook, held_out[0])) == held_out[0]
    assert main(["compressor", "compile", "gzip", "--out", str(tmp_path / "no")]) == 2
    assert "is a gzip compressor" in capsys.readouterr().err


def test_compiling_an_m1_of_another_vocabulary_is_refused(small_lm, tmp_path, capsys):
    from safetensors.torch import load, save

    from proxybyte.training.compressors.protocol import write_folder

    NeuralCompressor(small_lm, NeuralSettings()).save(tmp_path / "m1")
    tensors = load((tmp_path / "m1" / "m1.safetensors").read_bytes())
    tensors["head"] = torch.zeros(512, small_lm.width, dtype=torch.int8)
    write_folder(tmp_path / "m1", "neural", {"m1.safetensors": save(tensors)}, settings={})
    assert main(["compressor", "compile", str(tmp_path / "m1"), "--out", str(tmp_path / "cb")]) == 2
    assert "m1.safetensors: M1 reads 256 symbols and predicts 512" in capsys.readouterr().err


def test_a_codebook_counts_bytes_not_characters(small_lm):
    compressor = CodebookCompressor(grow(small_lm, GrowthRule(600)))
    text = "é🙂".encode()
    codes = encode_one(compressor, text)
    assert compressor.borders(codes)[-1] == len(text) == 6
    assert np.all(np.diff(compressor.borders(codes)) > 0)
