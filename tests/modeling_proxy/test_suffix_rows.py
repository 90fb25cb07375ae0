"""Suffix rows against a look-up by comparing bytes, in every way of decoding."""

import itertools

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, StaticCache

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.suffix_rows import NO_SYMBOL, SuffixTable
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, Special

ALPHABET = b"ab \xe4"
RNG = np.random.default_rng(3)
SPELLINGS: list[bytes | None] = [
    None, b"a", b"", b"ab", b"bab", b" a", b"abab ab", b"\xe4", b"\xe4a", b"ba", b"aaaa", b"abab", b"ab",
]  # fmt: skip
TINY = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


def by_comparing(symbols: list[int], spellings=SPELLINGS, starts: set[int] = frozenset()) -> list[int]:
    """For each position, the longest spelling that the bytes since the document's opening end with."""
    result, text = [], b""
    for place, symbol in enumerate(symbols):
        is_byte = BYTE_OFFSET <= symbol < COMPRESSED_OFFSET
        if place in starts:
            text = b""
        text = text + bytes([symbol - BYTE_OFFSET]) if is_byte else b""
        fitting = [(len(word), code) for code, word in enumerate(spellings) if word and text.endswith(word)]
        result.append(COMPRESSED_OFFSET + max(fitting)[1] if fitting else NO_SYMBOL)
    return result


def random_symbols(rows: int, length: int, sentinels: bool = True) -> torch.Tensor:
    """Mostly bytes that spell much, with a sentinel or a compressed symbol here and there."""
    symbols = BYTE_OFFSET + RNG.choice(np.frombuffer(ALPHABET, np.uint8).astype(np.int64), (rows, length))
    odd = RNG.random((rows, length)) < 0.08
    if sentinels:
        symbols[odd] = RNG.choice([0, 12, 13, 2, 325], odd.sum())
    return torch.from_numpy(symbols)


def build(family: str = "llama", mix: float = 0.5, **heads) -> ProxyByteForCausalLM:
    torch.manual_seed(0)
    settings = {**TINY, "model_type": family}
    if family == "gemma2":
        settings |= {"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8}
    if family == "proxybyte_eva":
        settings |= {"window_size": 16, "chunk_size": 4, "num_key_value_heads": 4}
    config = ProxyByteConfig(backbone_config=settings, num_compressed_symbols=len(SPELLINGS), **heads)
    model = ProxyByteForCausalLM(config).double().eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_()
        # The head of one row is no function of the other rows' order, so that greedy choices differ from row to row.
        model.lm_head.weight.normal_()
    model.add_suffix_rows(SuffixTable.build(SPELLINGS), mix)
    return model


@pytest.mark.parametrize("seed", range(4))
def test_look_up_is_the_longest_token_that_ends_there(seed):
    rng = np.random.default_rng(seed)
    words = [bytes(rng.choice(list(ALPHABET), rng.integers(1, 7)).tolist()) for _ in range(60)]
    table = SuffixTable.build(words)
    rows = build().suffix_rows
    rows.config.longest, rows.edges, rows.symbols = table.longest, *map(torch.from_numpy, (table.edges, table.symbols))
    symbols = random_symbols(5, 80)
    assert rows.look_up(symbols).tolist() == [by_comparing(row, words) for row in symbols.tolist()]


def test_an_empty_vocabulary_finds_nothing():
    table = SuffixTable.build([None, b""])
    model = build()
    model.add_suffix_rows(table, 0.5)
    assert table.longest == 0
    assert model.suffix_rows.look_up(random_symbols(2, 9)).eq(NO_SYMBOL).all()


def test_the_later_of_two_tokens_that_spell_the_same_is_taken():
    found = build().suffix_rows.look_up(torch.tensor([encode_bytes(b"ab").tolist()]))
    assert found[0, 1] == COMPRESSED_OFFSET + 12


def test_the_decoder_reads_the_mixture_of_both_rows():
    model, symbols = build(mix=0.3), random_symbols(2, 40)
    rows = model.get_input_embeddings().weight
    mixed = rows[symbols].clone()
    for row, place in itertools.product(range(2), range(40)):
        suffix = by_comparing(symbols[row].tolist())[place]
        if suffix != NO_SYMBOL:
            mixed[row, place] = 0.7 * rows[symbols[row, place]] + 0.3 * rows[suffix]
    with torch.no_grad():
        torch.testing.assert_close(model(symbols).logits, model(inputs_embeds=mixed).logits)
        assert (model(symbols).logits - model(inputs_embeds=rows[symbols]).logits).abs().max() > 0.1


def test_at_nothing_mixed_it_is_the_model_without():
    model, symbols = build(mix=0.0), random_symbols(2, 30)
    with torch.no_grad():
        plain = model(inputs_embeds=model.get_input_embeddings()(symbols)).logits
        torch.testing.assert_close(model(symbols).logits, plain, rtol=0, atol=0)


def test_packed_documents_are_each_as_they_are_alone():
    model = build()
    documents = [random_symbols(1, length, sentinels=False) for length in (7, 12, 9)]
    row = torch.cat(documents, dim=1)
    positions = torch.cat([torch.arange(document.shape[1]) for document in documents])[None]
    with torch.no_grad():
        packed = model(row, position_ids=positions).logits
        alone = torch.cat([model(document).logits for document in documents], dim=1)
    torch.testing.assert_close(packed, alone)
    # Without the restart the second document would read on from the first: the test can fail.
    expected = by_comparing(row[0].tolist(), starts={7, 19})
    assert model.suffix_rows.look_up(row, position_ids=positions)[0].tolist() == expected
    assert model.suffix_rows.look_up(row)[0].tolist() != expected


@pytest.mark.parametrize("family", ["llama", "gemma2", "proxybyte_eva"])
@pytest.mark.parametrize("parts", [[1] * 30, [11, 1, 1, 17], [29, 1], [3, 3, 3, 21]])
def test_cached_decoding_is_the_full_forward(family, parts):
    model, symbols = build(family), random_symbols(2, 30)
    symbols[:, 0] = Special.RAW_OPEN
    with torch.no_grad():
        whole = model(symbols).logits
        cache, start, got = None, 0, []
        for size in parts:
            output = model(symbols[:, start : start + size], past_key_values=cache, use_cache=True)
            cache, start = output.past_key_values, start + size
            got.append(output.logits)
    # Gemma 2 computes its softmax in float32.
    torch.testing.assert_close(torch.cat(got, dim=1), whole, rtol=1e-4, atol=1e-4)


def test_a_cropped_cache_forgets_symbols_too():
    model, symbols = build(), random_symbols(1, 24)
    with torch.no_grad():
        cache = model(symbols[:, :20], use_cache=True).past_key_values
        cache.crop(-8)
        other = torch.cat([symbols[:, :12], symbols[:, 16:24]], dim=1)
        got = model(other[:, 12:], past_key_values=cache, use_cache=True).logits
        torch.testing.assert_close(got, model(other).logits[:, 12:])


def test_a_cache_of_unknown_bytes_is_refused_by_name():
    model, symbols = build(), random_symbols(2, 20)
    with torch.no_grad():
        embedded = model.get_input_embeddings()(symbols)
        cache = model(inputs_embeds=embedded, use_cache=True).past_key_values
        with pytest.raises(ProxyByteError, match="suffix_symbols"):
            model(symbols[:, :1], past_key_values=cache)


def generated(model, prompts: list[list[int]], **settings) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": 63, "suppress_tokens": [2, 13], **settings}
    return model.generate(ids, attention_mask=mask, **settings)[:, width:].tolist()


def by_full_forwards(model, prompt: list[int], count: int = 24) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            scores = model(torch.tensor([text])).logits[0, -1, BYTE_OFFSET:COMPRESSED_OFFSET]
        text.append(BYTE_OFFSET + int(scores.argmax()))
    return text[len(prompt) :]


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return [[int(Special.RAW_OPEN), *random_symbols(1, length, sentinels=False)[0].tolist()] for length in (5, 14, 1)]


WAYS = {
    "cached": {},
    "uncached": {"use_cache": False},
    "static": {"cache_implementation": "static", "disable_compile": True},
    "prompt in parts": {"prefill_chunk_size": 4},
    "repeats": {"draft_repeats": True},
    "heads": {"draft": "heads", "draft_bytes": 3},
}


@pytest.mark.parametrize("way", WAYS)
def test_generation_is_that_of_full_forwards(prompts, way):
    model = build(num_raw_pred_heads=3)
    batch = prompts[:1] if way == "prompt in parts" else prompts
    assert generated(model, batch, **WAYS[way]) == [by_full_forwards(model, prompt) for prompt in batch]


def test_beams_are_those_without_a_cache(prompts):
    model = build()
    assert generated(model, prompts, num_beams=3) == generated(model, prompts, num_beams=3, use_cache=False)


def test_static_caches_are_not_compiled_over_the_look_up():
    model = build()
    cache = StaticCache(config=model.config, max_cache_len=40)
    assert cache.is_compileable
    symbols = random_symbols(1, 8)
    with torch.no_grad():
        got = model(symbols, past_key_values=cache, use_cache=True).logits
        torch.testing.assert_close(got, model(symbols).logits)


def test_it_saves_and_loads_with_the_model(tmp_path):
    model, symbols = build(mix=0.25).float(), random_symbols(2, 30)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.config.suffix_rows.mix == 0.25
    assert loaded.config.suffix_rows.longest == max(len(word) for word in SPELLINGS if word)
    with torch.no_grad():
        torch.testing.assert_close(loaded(symbols).logits, model(symbols).logits, rtol=0, atol=0)
    again = ProxyByteForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert again.suffix_rows.edges.dtype == torch.int64


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"mix": 1.5}, "suffix_rows.mix"),
        ({"mix": True}, "suffix_rows.mix"),
        ({"nodes": 0}, "suffix_rows.nodes"),
        ({"longest": -1}, "suffix_rows.longest"),
        ({"hashed": -1}, "suffix_rows.hashed"),
        ({"blend": 0.5}, "blend"),
        ([1], "suffix_rows"),
    ],
)
def test_a_section_that_is_none_is_refused_by_name(section, said):
    with pytest.raises(ProxyByteError, match=said):
        ProxyByteConfig(suffix_rows=section)


def hashed_by_hand(symbols: list[int], length: int, rows: int, starts: set[int] = frozenset()) -> list[int]:
    """The definition in whole numbers, cut to 64 bits and read with a sign where a machine would."""

    def signed(number: int) -> int:
        return (number + 2**63) % 2**64 - 2**63

    result, text = [], []
    for place, symbol in enumerate(symbols):
        is_byte = BYTE_OFFSET <= symbol < COMPRESSED_OFFSET
        text = [] if place in starts or not is_byte else text
        text = [*text, symbol - BYTE_OFFSET] if is_byte else []
        value = 0
        for byte in text[: -length - 1 : -1]:
            value = signed(value * 0x100000001B3 + byte + 1)
        value = signed((value ^ (value >> 29)) * 0x2545F4914F6CDD1D)
        result.append(COMPRESSED_OFFSET + (value ^ (value >> 32)) % rows if text else NO_SYMBOL)
    return result


@pytest.mark.parametrize("length", [1, 3, 8])
def test_hashed_rows_are_those_of_the_last_bytes(length):
    model, symbols = build(), random_symbols(4, 60)
    model.add_hashed_suffix_rows(length, 0.5)
    expected = [hashed_by_hand(row, length, len(SPELLINGS)) for row in symbols.tolist()]
    assert model.suffix_rows.look_up(symbols).tolist() == expected
    positions = torch.cat([torch.arange(25), torch.arange(35)])[None].expand(4, -1)
    restarted = [hashed_by_hand(row, length, len(SPELLINGS), {25}) for row in symbols.tolist()]
    assert model.suffix_rows.look_up(symbols, position_ids=positions).tolist() == restarted
    assert length == 1 or restarted != expected


def test_hashed_rows_are_spread_evenly():
    model = build()
    model.add_hashed_suffix_rows(4, 0.5)
    model.suffix_rows.config.hashed = 64
    text = torch.from_numpy(BYTE_OFFSET + RNG.integers(0, 256, (1, 20000)))
    counts = np.bincount(model.suffix_rows.look_up(text)[0].numpy() - COMPRESSED_OFFSET, minlength=64)
    # 312.5 each, give or take 17.5.
    assert len(counts) == 64 and counts.min() > 230 and counts.max() < 400


@pytest.mark.parametrize("way", WAYS)
def test_generation_with_hashed_rows_is_that_of_full_forwards(prompts, way):
    model = build(num_raw_pred_heads=3)
    model.add_hashed_suffix_rows(4, 0.5)
    batch = prompts[:1] if way == "prompt in parts" else prompts
    assert generated(model, batch, **WAYS[way]) == [by_full_forwards(model, prompt) for prompt in batch]


def test_hashed_rows_save_and_load_without_a_table(tmp_path):
    model, symbols = build().float(), random_symbols(2, 30)
    model.add_hashed_suffix_rows(4, 0.25)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert (loaded.config.suffix_rows.hashed, loaded.config.suffix_rows.longest) == (len(SPELLINGS), 4)
    assert len(loaded.suffix_rows.edges) == 0
    with torch.no_grad():
        torch.testing.assert_close(loaded(symbols).logits, model(symbols).logits, rtol=0, atol=0)
