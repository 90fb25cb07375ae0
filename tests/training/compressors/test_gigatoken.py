"""gigatoken beside tokenizers: equal ids over hostile text, memory that stays bounded, and what happens without it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from proxybyte.training.compressors import encode_one
from proxybyte.training.compressors.bpe import BpeCompressor, Engine
from proxybyte.training.compressors.bpe_train import Split
from proxybyte.training.compressors.byte_level import GPT2_PATTERN, GPT4_PATTERN, O200K_PATTERN, QWEN2_PATTERN
from proxybyte.training.compressors.gigatoken_coder import LOOKED_AT_EVERY, REMEMBERED_BYTES, is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason="gigatoken is not installed (the extra 'fast')")

NO_REGEX = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
CUTS = {
    "byte-level": pre_tokenizers.ByteLevel(add_prefix_space=False),
    **{
        name: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), NO_REGEX])
        for name, pattern in {
            "gpt2": GPT2_PATTERN,
            "gpt4": GPT4_PATTERN,
            "qwen2": QWEN2_PATTERN,
            "o200k": O200K_PATTERN,
        }.items()
    },
}
WHITESPACE = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
LETTERS = "aAzZsStTlLvVeErRdDmMſKİıßéE\u0301\u0300中文あ한नमस्\u0e01ǅʰ"
OTHERS = "'’09½²Ⅷ٣_.,:;!?/()[]{}<>=+-*&^%$#@~`\"\\|🙂🏽\u200d\U0001f1e6\x00\x7f\ue000\U000e0001"
HOSTILE = st.lists(
    st.text(WHITESPACE + LETTERS + OTHERS, max_size=6)
    | st.sampled_from(
        ["'s", "'LL", "'ſ", "'ve", " '", "  ", "\r\n", "\n\n ", "1234567", "don't", "HTTPServer", "<|end|>"]
    )
    | st.text(max_size=8)
).map("".join)


def small_bpe(cut: str, documents: list[bytes], size: int, normalizer=None) -> BpeCompressor:
    """A tokenizer that the tokenizers library trains."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = CUTS[cut], decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([document.decode() for document in documents], trainer)
    return BpeCompressor(tokenizer.to_str(), f"{cut}-{size}")


def library_ids(compressor: BpeCompressor, text: str) -> list[int]:
    tokenizer = Tokenizer.from_str(compressor.tokenizer_json)
    tokenizer.encode_special_tokens = True
    return tokenizer.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module")
def bpes(sources) -> dict[tuple[str, int], BpeCompressor]:
    """Every cut with a vocabulary of source, and one with pieces of many scripts."""
    scripts = [(LETTERS * 3 + WHITESPACE + OTHERS + " नमस्ते 東京 don't HTTPServer 12345 ").encode()] * 20
    return {
        (cut, size): small_bpe(cut, documents, size)
        for cut in CUTS
        for size, documents in {900: sources[:20], 400: scripts}.items()
    }


@pytest.mark.parametrize("size", [900, 400])
@pytest.mark.parametrize("cut", CUTS)
@settings(max_examples=60)
@given(text=HOSTILE)
@example("a" * 3000 + " " * 3000 + "1" * 3000 + "(" * 3000 + "\n" * 3000)
def test_ids_are_those_of_the_tokenizers_library_on_hostile_text(bpes, cut, size, text):
    bpe = bpes[cut, size]
    assert bpe.engine is Engine.GIGATOKEN
    assert encode_one(bpe, text.encode()).tolist() == library_ids(bpe, text)


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cut", CUTS)
def test_ids_are_those_of_the_tokenizers_library_on_every_character_of_unicode(bpes, cut, step):
    """Each character after and before letters, digits, spaces and marks: both must know it as the same kind."""
    points = [*range(0x3100), *range(0x3100, 0xD800, step), *range(0xE000, 0x110000, step)]
    text = "".join(f"a{chr(p)}b 1{chr(p)}2 {chr(p)}{chr(p)}\n{chr(p)} .{chr(p)}'{chr(p)}s" for p in points)
    assert encode_one(bpes[cut, 900], text.encode()).tolist() == library_ids(bpes[cut, 900], text)


BROKEN = st.tuples(HOSTILE, st.binary(max_size=4), HOSTILE).map(
    lambda parts: parts[0].encode() + parts[1] + parts[2].encode()
)


@pytest.fixture(scope="module")
def by_tiktoken(bpes) -> BpeCompressor:
    return BpeCompressor(bpes["gpt4", 900].tokenizer_json, "other", fastest=Engine.TIKTOKEN)


@settings(max_examples=60)
@given(document=st.binary(max_size=60) | BROKEN)
def test_any_bytes_give_the_ids_that_tiktoken_gives_and_come_back(bpes, by_tiktoken, document):
    assert by_tiktoken.engine is Engine.TIKTOKEN
    bpe = bpes["gpt4", 900]
    (ours,), (theirs,) = bpe.encode_batch([document]), by_tiktoken.encode_batch([document])
    assert np.array_equal(ours, theirs)
    assert bpe.decode(ours) == document


def test_added_tokens_and_a_normaliser_stay_what_they_are(sources):
    composed = small_bpe("qwen2", sources[:5], 400, normalizers.NFC())
    tokenizer = Tokenizer.from_str(composed.tokenizer_json)
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    bpe = BpeCompressor(tokenizer.to_str(), "added")
    assert bpe.engine is Engine.GIGATOKEN
    for text in ("call <tool> now", "x<|end|>y", "café"):
        assert encode_one(bpe, text.encode()).tolist() == library_ids(bpe, text)
    fine, changed = bpe.encode_batch(["café".encode(), "cafe\u0301".encode()])
    assert bpe.decode(fine) == "café".encode() and "normaliser" in str(changed)


def test_another_cut_and_other_merges_run_elsewhere(trained):
    assert trained[Split.CODE].engine is Engine.TIKTOKEN
    assert trained[Split.GPT2].engine is trained[Split.GPT4].engine is Engine.GIGATOKEN
    vocab = {character: code for code, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {"bc": 256, "ab": 257, "abc": 258}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("b", "c"), ("a", "b"), ("ab", "c")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = CUTS["gpt2"], decoders.ByteLevel()
    assert BpeCompressor(tokenizer.to_str(), "unreachable").engine is Engine.TOKENIZERS


_MANY_WORDS = """
import sys, json
import numpy as np
from proxybyte.training.compressors.bpe import BpeCompressor, Engine
bpe = BpeCompressor(sys.stdin.read(), "many")
assert bpe.engine is Engine.GIGATOKEN
def status(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))
draw, before, codes = np.random.default_rng(0), status("VmRSS:"), 0
for _ in range(int(sys.argv[1])):
    words = draw.integers(97, 123, (1 << 20) // 9 * 9, np.uint8).reshape(-1, 9)
    words[:, 0] = 32
    codes += len(bpe.encode_batch([words.tobytes()])[0])
print(json.dumps([codes, status("VmHWM:") - before]))
"""


def test_what_it_remembers_is_bounded(bpes):
    """Words that come once each: 24 MB of them would have it hold 400 MB."""
    work = [sys.executable, "-c", _MANY_WORDS, "24"]
    done = subprocess.run(work, input=bpes["gpt2", 900].tokenizer_json, stdout=subprocess.PIPE, text=True, check=True)
    codes, grown = json.loads(done.stdout)
    assert codes > 5_000_000
    assert grown < REMEMBERED_BYTES + 2 * 16 * LOOKED_AT_EVERY
