"""BPE: exact, equal to the tokenizers library where it is fast, refusing what it cannot give back."""

import json
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors import CannotEncode, encode_one
from proxybyte.training.compressors.bpe import BpeCompressor
from proxybyte.training.compressors.bpe_train import Seen, Split, train_bpe
from proxybyte.training.compressors.tiktoken_coder import LONGEST_WHITESPACE

SPLITS = list(Split)
MIXED_TEXT = st.lists(
    st.sampled_from(
        ["def ", "self", "'s", "'LL", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2028", "0", "123", "Ⅷ", "²"]
    )
    | st.text(max_size=8)
).map("".join)


def byte_level(*, model=None, normalizer=None, split=None, digits=False, train=()):
    """A byte-level tokenizer of the library's own making."""
    tokenizer = Tokenizer(model or models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if split:
        steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    if train:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator([document.decode() for document in train], trainer)
    return tokenizer


def compressor_of(tokenizer: Tokenizer) -> BpeCompressor:
    return BpeCompressor(tokenizer.to_str(), "under-test")


def library_ids(compressor: BpeCompressor, text: str) -> list[int]:
    tokenizer = Tokenizer.from_str(compressor.tokenizer_json)
    tokenizer.encode_special_tokens = True
    return tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("split", SPLITS)
def test_ids_equal_the_tokenizers_library_on_unseen_source(trained, held_out, split):
    compressor = trained[split]
    assert not compressor.slow_reason
    for document, codes in zip(held_out, compressor.encode_batch(held_out), strict=True):
        assert codes.tolist() == library_ids(compressor, document.decode())


@pytest.mark.parametrize("split", SPLITS)
@settings(max_examples=50)
@given(text=MIXED_TEXT)
def test_ids_equal_the_tokenizers_library_on_any_text(trained, split, text):
    compressor = trained[split]
    assert encode_one(compressor, text.encode()).tolist() == library_ids(compressor, text)


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("split", SPLITS)
def test_ids_equal_the_tokenizers_library_on_every_character_of_unicode(trained, split, step):
    """Each character after a letter, a space and a digit; both regex engines must know it as the same kind."""
    points = [*range(0x3100), *range(0x3100, 0xD800, step), *range(0xE000, 0x110000, step)]
    text = "".join(f"a{chr(point)} {chr(point)}1" for point in points)
    compressor = trained[split]
    assert encode_one(compressor, text.encode()).tolist() == library_ids(compressor, text)


@settings(max_examples=50)
@given(text=MIXED_TEXT)
def test_digits_split_off_one_by_one_run_fast_with_equal_ids(digit_bpe, text):
    assert not digit_bpe.slow_reason
    assert encode_one(digit_bpe, text.encode()).tolist() == library_ids(digit_bpe, text)


@pytest.fixture(scope="module")
def digit_bpe(sources):
    return compressor_of(byte_level(digits=True, train=sources[:20]))


def test_special_tokens_are_never_read_from_text(sources):
    tokenizer = byte_level(train=sources[:5])
    tokenizer.add_special_tokens(["<|endoftext|>"])
    compressor = compressor_of(tokenizer)
    special = tokenizer.token_to_id("<|endoftext|>")
    codes = encode_one(compressor, b"x<|endoftext|>y")
    assert special not in codes and compressor.decode(codes) == b"x<|endoftext|>y"
    assert compressor.num_symbols == special + 1
    with pytest.raises(ProxyByteError, match=r"<\|endoftext\|>.*spells no text"):
        compressor.decode(np.array([special]))


def test_added_tokens_that_are_not_special_keep_their_ids(sources):
    tokenizer = byte_level(train=sources[:5])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("        ", normalized=False)])
    compressor = compressor_of(tokenizer)
    assert not compressor.slow_reason
    for text in ("call <tool> now", "if x:\n        return", "none of them"):
        codes = encode_one(compressor, text.encode())
        assert codes.tolist() == library_ids(compressor, text)
        assert compressor.decode(codes) == text.encode()


def test_text_that_a_normaliser_changes_is_refused_with_its_reason(sources):
    composed = compressor_of(byte_level(normalizer=normalizers.NFC(), train=sources[:5]))
    assert not composed.slow_reason
    fine, changed, also_fine = composed.encode_batch(["café".encode(), "cafe\u0301".encode(), b"plain"])
    assert composed.decode(fine) == "café".encode() and composed.decode(also_fine) == b"plain"
    assert isinstance(changed, CannotEncode) and "normaliser" in str(changed)
    lower = compressor_of(byte_level(normalizer=normalizers.Lowercase(), train=sources[:5]))
    fine, changed = lower.encode_batch([b"abc", b"Abc"])
    assert lower.decode(fine) == b"abc" and isinstance(changed, CannotEncode)


def test_bytes_that_are_not_utf8_come_back_from_a_byte_level_vocabulary(trained):
    compressor = trained[Split.CODE]
    for document in (b"\xff", b"caf\xe9 na\xefve\n", b"\xed\xa0\x80", b"ok \xf0\x9f\x98", bytes(range(256)) * 3):
        assert compressor.decode(encode_one(compressor, document)) == document


@pytest.fixture(scope="module")
def sentencepiece_like(sources):
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    spellings = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    text = [line for document in sources[:2] for line in document.decode().splitlines() if line.isascii()]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=spellings, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    return compressor_of(tokenizer)


@settings(max_examples=50)
@given(text=MIXED_TEXT)
def test_a_tokenizer_of_another_kind_gives_back_the_text_or_refuses(sentencepiece_like, text):
    assert sentencepiece_like.slow_reason
    (codes,) = sentencepiece_like.encode_batch([text.encode()])
    if isinstance(codes, CannotEncode):
        return
    assert sentencepiece_like.decode(codes) == text.encode()
    ends = sentencepiece_like.borders(codes)
    assert ends is None or not ends.size or ends[-1] == len(text.encode())


def test_a_tokenizer_of_another_kind_codes_source_and_refuses_what_is_not_utf8(sentencepiece_like):
    source, broken = sentencepiece_like.encode_batch(["def f(x):\n    return 'é'".encode(), b"\xff"])
    assert sentencepiece_like.decode(source) == "def f(x):\n    return 'é'".encode()
    assert sentencepiece_like.borders(source)[-1] == len("def f(x):\n    return 'é'".encode())
    assert isinstance(broken, CannotEncode) and "byte 0 is not UTF-8" in str(broken)


def test_a_merge_that_tiktoken_would_add_runs_on_tokenizers():
    """Merges bc, ab, abc=(ab, c): tokenizers leaves "abc" as a|bc, tiktoken would join it."""
    vocab = {character: code for code, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {"bc": 256, "ab": 257, "abc": 258}
    unreachable = models.BPE(vocab=vocab, merges=[("b", "c"), ("a", "b"), ("ab", "c")])
    compressor = compressor_of(byte_level(model=unreachable))
    assert "'abc' does not arise" in compressor.slow_reason
    assert encode_one(compressor, b"abc").tolist() == [vocab["a"], 256]


def cut_by(pattern, behavior="isolated"):
    return pre_tokenizers.Split(Regex(pattern), behavior)


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        (byte_level(split=cut_by(r"\w+|\W+")), "differ between regex engines"),
        (byte_level(split=cut_by(r"\p{L}+(?=x)|[^x]|x")), "differ between regex engines"),
        (byte_level(split=cut_by(r"\p{N}{1,3}+|\P{N}+")), "differ between regex engines"),
        (byte_level(split=cut_by(r"(?<=a)b|[^b]|b")), "differ between regex engines"),
        (byte_level(split=cut_by(r"(?i:straße)|\P{L}+|\p{L}+")), "differ between regex engines"),
        (byte_level(split=cut_by(r"^\s+|[^\n]+|\n")), "differ between regex engines"),
        (byte_level(split=cut_by(r"\s+|\S+", "merged_with_previous")), "other means than the matches"),
        (byte_level(split=pre_tokenizers.Sequence([cut_by(r"\s+|\S+"), cut_by(r"a|[^a]+")])), "in 3 steps"),
        (byte_level(model=models.BPE(dropout=0.1)), "uses dropout"),
        (byte_level(model=models.BPE(vocab={"a": 0}, merges=[])), "no symbol for byte 0"),
    ],
)
def test_what_might_differ_runs_on_tokenizers_for_a_reason(tokenizer, reason):
    if tokenizer.get_vocab_size() == 0:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer.model = models.BPE(
            vocab={character: code for code, character in enumerate(alphabet)},
            merges=[],
            dropout=tokenizer.model.dropout,
        )
    assert reason in compressor_of(tokenizer).slow_reason


def test_a_pattern_that_skips_text_loses_none(sources):
    """Pieces that the pattern does not match: tokenizers keeps them, tiktoken would drop them."""
    everywhere = compressor_of(byte_level(split=cut_by(r"\p{L}+|\s+"), train=sources[:5]))
    assert "probe" in everywhere.slow_reason
    seldom = compressor_of(byte_level(split=cut_by(r"[^\p{Lm}]+"), train=sources[:5]))
    assert not seldom.slow_reason
    for compressor in (everywhere, seldom):
        for text in ("a = 1;", "xʰ y"):
            codes = encode_one(compressor, text.encode())
            assert compressor.decode(codes) == text.encode() and codes.tolist() == library_ids(compressor, text)


@pytest.mark.parametrize("split", SPLITS)
def test_whitespace_longer_than_tiktoken_bears_is_coded_exactly(trained, split):
    compressor = trained[split]
    text = "x" + " " * (LONGEST_WHITESPACE * 8) + "y"
    codes = encode_one(compressor, text.encode())
    assert compressor.decode(codes) == text.encode()
    assert codes.tolist() == library_ids(compressor, text)


def test_borders_are_where_each_prefix_ends(trained, held_out):
    compressor = trained[Split.CODE]
    codes = encode_one(compressor, held_out[0])[:50]
    assert compressor.borders(codes).tolist() == [len(compressor.decode(codes[: n + 1])) for n in range(len(codes))]


def test_the_same_corpus_trains_the_same_vocabulary(sources, trained):
    assert train_bpe(sources, 1500, Split.CODE).tokenizer_json == trained[Split.CODE].tokenizer_json


def test_training_leaves_out_and_counts_what_is_not_utf8(sources):
    seen = Seen()
    compressor = train_bpe([*sources[:3], b"\xff\xfe"], 300, seen=seen)
    assert compressor.num_symbols == 300 and (seen.n_documents, seen.not_utf8) == (4, 1)
    with pytest.raises(ProxyByteError, match="none of the 1 documents is UTF-8"):
        train_bpe([b"\xff"], 300)
    with pytest.raises(ProxyByteError, match="at least 256"):
        train_bpe(sources[:1], 255)


def test_a_corpus_too_small_for_the_vocabulary_gives_a_smaller_one():
    compressor = train_bpe([b"aa bb aa bb"], 5000)
    assert 256 < compressor.num_symbols < 300 and compressor.name == f"bpe-{compressor.num_symbols}-code"


def test_a_compressor_travels_to_another_process(trained, held_out):
    compressor = pickle.loads(pickle.dumps(trained[Split.CODE]))
    assert np.array_equal(encode_one(compressor, held_out[0]), encode_one(trained[Split.CODE], held_out[0]))


def test_learning_from_one_unbroken_run_of_letters_takes_time_by_its_length():
    draw = np.random.default_rng(0)
    seconds = []
    for size in (20_000, 160_000):
        run = draw.integers(ord("a"), ord("z") + 1, size).astype(np.uint8).tobytes()
        started = time.process_time()
        compressor = train_bpe([run], 700)
        seconds.append(time.process_time() - started)
        assert compressor.decode(encode_one(compressor, run)) == run
    assert seconds[1] < 30 * seconds[0] + 1  # 8 times the length; by the square it would be 64 times


def test_bounded_pieces_are_no_part_of_what_is_saved(sources):
    saved = json.loads(train_bpe(sources[:5], 400).tokenizer_json)
    assert [step["type"] for step in saved["pre_tokenizer"]["pretokenizers"]] == ["Split", "ByteLevel"]
