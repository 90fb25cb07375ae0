"""A document in parts has the codes that it has whole, for every pattern that is cut and any text."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from proxybyte.training.compressors import CannotEncode, cuts
from proxybyte.training.compressors.bpe import BpeCompressor, Engine
from proxybyte.training.compressors.bpe_train import Split

TEXT = st.lists(
    st.text(" \n\r\t\x0b\x1c\u00a0\u2028\u3000aZs1²'_/.!(é中\u0301🙂", max_size=8)
    | st.sampled_from(["word and ", "don't ", "line\nx = 1\n", "!\n/", "a\n  b", "\n\nx", "c\r\nd", "12 3", "。\n中"])
    | st.text(max_size=4)
).map("".join)


@pytest.fixture(scope="module")
def by_pattern(sources) -> dict[str, BpeCompressor]:
    """The reference, tokenizers, for each pattern."""
    found = {}
    for pattern in cuts.PATTERNS:
        tokenizer = Tokenizer(models.BPE())
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), as_bytes])
        tokenizer.decoder, tokenizer.normalizer = decoders.ByteLevel(), normalizers.NFC()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator([document.decode() for document in sources[:10]], trainer)
        found[pattern] = BpeCompressor(tokenizer.to_str(), "whole", fastest=Engine.TOKENIZERS)
    return found


@pytest.mark.parametrize("pattern", cuts.PATTERNS)
@settings(max_examples=100, deadline=None)
@given(text=TEXT, size=st.integers(8, 40))
@example("one two\nthree four\n_five\n/six!\n/7 x yz ab cd\n" * 3, 9)
def test_codes_of_the_parts_are_the_codes_of_the_whole(by_pattern, pattern, text, size):
    document = text.encode()
    parts = list(cuts.parts_of(document, size))
    assert b"".join(parts) == document
    whole, *coded = by_pattern[pattern].encode_batch([document, *parts])
    if not isinstance(whole, CannotEncode):
        assert np.concatenate(coded).tolist() == whole.tolist()
    else:  # a normaliser's form is that of all parts, too
        assert any(isinstance(code, CannotEncode) for code in coded)


@given(st.binary(max_size=200), st.integers(8, 40))
def test_any_bytes_come_back_from_their_parts(document, size):
    assert b"".join(cuts.parts_of(document, size)) == document


def test_ordinary_text_is_cut_near_what_is_asked(held_out):
    document = b"\n".join(held_out)
    parts = list(cuts.parts_of(document, 10_000))
    assert len(parts) >= len(document) // 10_000
    assert max(map(len, parts)) <= 10_000


@pytest.mark.parametrize("split", list(Split))
def test_a_long_document_is_coded_in_parts_and_comes_back(trained, held_out, split, monkeypatch):
    bpe, document = trained[split], b"\n".join(held_out) + b"\n\xff broken \xfe and more\n" + held_out[0]
    (whole,) = bpe.encode_batch([document])
    monkeypatch.setattr(cuts, "PART_BYTES", 1 << 12)
    (in_parts,) = bpe.encode_batch([document])
    assert np.array_equal(in_parts, whole)
    assert bpe.decode(in_parts) == document


def test_a_run_that_cannot_be_cut_is_refused_with_its_reason(trained, monkeypatch):
    monkeypatch.setattr(cuts, "PART_BYTES", 1 << 12)
    monkeypatch.setattr(cuts, "LONGEST_UNCUT", 1 << 14)
    fine, refused = trained[Split.CODE].encode_batch([b"x" * ((1 << 14) - 1), b"words and " + b"x" * (1 << 15)])
    assert isinstance(refused, CannotEncode) and "one run" in str(refused)
    assert trained[Split.CODE].decode(fine) == b"x" * ((1 << 14) - 1)
