"""Drafts in the compressed view: aligned with the text, from caches that forget what changed, never in the output."""

import random

import pytest
import torch
from scipy.stats import chisquare

from proxybyte.drafting import Texts
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import Special
from proxybyte.training.compressors.cross_view import CrossViewDrafter
from proxybyte.training.compressors.spelling import Spelling

RAW, OPEN, CLOSE = int(Special.RAW_OPEN), int(Special.COMPRESSED_OPEN), int(Special.COMPRESSED_CLOSE)
WORDS = [None, b"ab", b"abc", b"bca", b"cc", b"aabb", b"\xff", b"\xff\xff", b"ca"] + [bytes([b]) for b in b"abcd"]
KINDS = pytest.mark.parametrize("kind", ["llama", "proxybyte_eva"])


def parse(text: bytes) -> list[int]:
    """The longest word first, from the left; up to the first byte that no word begins with."""
    codes, start = [], 0
    while start < len(text):
        fitting = [code for code, word in enumerate(WORDS) if word and text.startswith(word, start)]
        if not fitting:
            break
        codes.append(max(fitting, key=lambda code: len(WORDS[code] or b"")))
        start += len(WORDS[codes[-1]])
    return codes


@pytest.fixture
def spelling() -> Spelling:
    return Spelling(WORDS, parse)


@pytest.mark.parametrize("start", [b"", b"a", b"ab", b"abc", b"abcd", b"\xff", b"\xff\xff", b"\xff\xff\xff", b"x"])
def test_words_that_begin_with_a_string_are_found(spelling, start):
    found = set(spelling.beginning_with(start).tolist())
    assert found == {code for code, word in enumerate(WORDS) if word and word.startswith(start)}


def test_a_compressor_whose_symbols_spell_nothing_is_refused():
    with pytest.raises(ProxyByteError, match="spell"):
        Spelling([None, b""], parse)


@torch.no_grad()
def expected_draft(model, text: bytes, most: int, symbols: int) -> list[int]:
    """The draft from the definition: whole texts, no cache, one symbol after the other."""
    codes = parse(text)
    spelled = sum(len(WORDS[code]) for code in codes)
    if spelled == len(text) and codes:
        spelled -= len(WORDS[codes.pop()])
    start, row, draft = text[spelled:], [OPEN, *(320 + code for code in codes)], []
    for _ in range(symbols):
        choices = [320 + code for code, word in enumerate(WORDS) if word and word.startswith(start)]
        choices += [] if start else [CLOSE]
        if not choices:
            return draft
        logits = model(torch.tensor([row]), use_cache=False).logits[0, -1]
        best = max(choices, key=lambda symbol: float(logits[symbol]))
        row.append(best)
        if best == CLOSE:
            return [*draft, int(Special.RAW_CLOSE)]
        draft += [64 + byte for byte in WORDS[best - 320][len(start) :]]
        start = b""
    return draft


@KINDS
def test_drafts_from_the_caches_are_those_of_whole_texts(tiny_model, spelling, kind):
    """Texts that grow by any number of bytes, as drafted or otherwise, while rows end."""
    model = tiny_model(kind)
    source = random.Random(0)
    drafter = CrossViewDrafter(spelling).open(model, most=5)
    texts = Texts(torch.tensor([[0, 0, RAW, 65 + 96], [RAW, 161, 162, 163], [0, RAW, 162, 319]]), pad=0)
    contents = [b"a", b"abc", b"b\xff"]
    for step in range(14):
        before = drafter.forwards
        drafts = drafter.propose(texts, 5)
        assert 1 <= drafter.forwards - before <= 6
        for place, row in enumerate(texts.active):
            expected = expected_draft(model, contents[row], 5, drafter.forwards - before)
            found = drafts[place].symbols
            assert bool(found) == bool(expected) and found == expected[: len(found)]
        new = []
        for place in range(len(texts.active)):
            right = [symbol for symbol in drafts[place].symbols if symbol >= 64][: source.randint(0, 5)]
            new.append([*right, 64 + source.choice(b"abcdx")])
        for row, symbols in zip(texts.active, new, strict=True):
            texts.new[row] += symbols
            contents[row] += bytes(symbol - 64 for symbol in symbols)
        if step == 6:
            texts.active = [0, 2]
            drafter.keep([0, 2])


@KINDS
def test_greedy_output_is_that_of_raw_bytes_alone(tiny_model, padded, spelling, kind):
    model, prompts = tiny_model(kind), padded()
    settings = {"max_new_tokens": 14, "eos_token_id": list(range(64, 74))}
    expected = model.generate(**prompts, **settings)
    for most in (None, 3):
        drafting = {"draft": CrossViewDrafter(spelling), "draft_bytes": most}
        assert torch.equal(model.generate(**prompts, **settings, **drafting), expected)


def test_text_after_another_special_symbol_begins_anew(tiny_model, spelling):
    model = tiny_model()
    prompts = torch.tensor([[RAW, 161, 162, int(Special.FIM_SUFFIX), 161], [RAW, 161, 162, 163, int(Special.SEP)]])
    expected = model.generate(prompts, max_new_tokens=16)
    assert torch.equal(model.generate(prompts, max_new_tokens=16, draft=CrossViewDrafter(spelling)), expected)
    drafter = CrossViewDrafter(spelling).open(model, most=4)
    (first, second) = drafter.propose(Texts(prompts, pad=0), 4)
    symbols = drafter.forwards
    for draft, text in ((first, b"a"), (second, b"")):
        assert draft.symbols and draft.symbols == expected_draft(model, text, 4, symbols)[: len(draft.symbols)]


@KINDS
def test_sampled_texts_follow_the_exact_distribution(tiny_model, spelling, kind):
    """Chi-square against the product of the raw model's own probabilities, in a padded batch."""
    model = tiny_model(kind)
    letters, count = [161, 162, 163], 900
    prompts = torch.tensor([[RAW, 161, 162, 163], [0, RAW, 163, 163]])
    others = [symbol for symbol in range(model.config.vocab_size) if symbol not in letters]
    settings = {"do_sample": True, "top_k": 0, "temperature": 6.0, "suppress_tokens": others, "eos_token_id": None}
    torch.manual_seed(1)
    sampled = model.generate(
        prompts,
        attention_mask=prompts.ne(0).long(),
        max_new_tokens=3,
        num_return_sequences=count,
        draft=CrossViewDrafter(spelling),
        return_dict_in_generate=True,
        **settings,
    )
    assert sum(sampled.drafts.accepted) > 50
    for number, prompt in enumerate([prompts[:1], prompts[1:, 1:]]):
        new = sampled.sequences[number * count : (number + 1) * count, 4:] - 161
        seen = torch.bincount((new * torch.tensor([9, 3, 1])).sum(1), minlength=27)
        texts = torch.cartesian_prod(*[torch.tensor(letters)] * 3)
        with torch.no_grad():
            logits = model(torch.cat([prompt.expand(27, -1), texts], dim=1), use_cache=False).logits
        probabilities = (logits[:, -4:-1, letters] / 6.0).softmax(-1).gather(2, (texts - 161)[..., None])
        expected = probabilities.squeeze(-1).prod(dim=1) * count
        assert expected.min() > 1
        assert chisquare(seen.numpy(), (expected * (count / expected.sum())).numpy()).pvalue > 1e-3
