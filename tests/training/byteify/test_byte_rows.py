"""First rows of bytes against their definition, written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.symbols import NUM_RAW_SYMBOLS, Special
from proxybyte.training.byteify.base import open_base
from proxybyte.training.byteify.embedding_rows import RowScheme, byte_rows, raw_rows, token_spellings
from proxybyte.training.byteify.specials import map_specials

SPELLINGS = st.lists(st.none() | st.binary(max_size=4), min_size=3, max_size=12).filter(any)


def by_hand(rows, spellings, byte: int, scheme: RowScheme):
    """The mean that a scheme asks for, ``None`` where no token qualifies."""
    chosen = []
    for row, spelled in zip(rows, spellings, strict=True):
        text = spelled or b""
        if scheme is RowScheme.TOKEN:
            chosen += [row] * (text == bytes([byte]))
        elif scheme is RowScheme.BEGINS:
            chosen += [row] * text.startswith(bytes([byte]))
        else:
            chosen += [row] * text.count(bytes([byte]))
    return torch.stack(chosen).mean(dim=0) if chosen else None


@pytest.mark.parametrize("scheme", [RowScheme.TOKEN, RowScheme.BEGINS, RowScheme.SPELLS])
@given(spellings=SPELLINGS)
def test_a_bytes_row_is_the_mean_that_the_scheme_names(scheme, spellings):
    rows = torch.randn(len(spellings), 3, generator=torch.Generator().manual_seed(0))
    made = byte_rows(rows, spellings, scheme)
    assert made.shape == (256, 3)
    for byte in {0, 255, *b"".join(text or b"" for text in spellings)}:
        expected = by_hand(rows, spellings, byte, scheme)
        if expected is not None:
            torch.testing.assert_close(made[byte], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scheme", list(RowScheme))
def test_every_byte_has_a_finite_row_whatever_the_vocabulary(scheme):
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    made = byte_rows(rows, [None, b"ab", b"a", b"\xff"], scheme)
    assert made.isfinite().all()
    if scheme is RowScheme.TOKEN:
        torch.testing.assert_close(made[ord("b")], rows[1])  # no token b: the one that spells it


def test_random_rows_follow_the_seed():
    rows, spellings = torch.randn(4, 3), [b"a", b"b", b"c", b"d"]
    one, same, other = (byte_rows(rows, spellings, RowScheme.RANDOM, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("tokenizer", ["byte-level", "llama-pieces", "gemma-pieces"])
def test_spellings_are_what_the_tokens_write(make_base, tokenizer):
    base = open_base(str(make_base("llama", tokenizer)))
    spellings = token_spellings(base.compressor)
    (codes,) = base.compressor.encode_batch(["x = 'naïve  東'\n".encode()])
    joined = b"".join(spellings[code] or b"?" for code in codes.tolist())
    assert joined.removeprefix(b" ") == "x = 'naïve  東'\n".encode()
    singles = {text for text in spellings if text and len(text) == 1}
    assert len(singles) == 256
    assert spellings[base.tokenizer.bos_token_id] is None


def test_specials_take_the_rows_of_the_tokens_that_do_their_work(make_base):
    base = open_base(str(make_base("llama")))
    vocab = base.tokenizer.get_vocab()
    table = map_specials(base.tokenizer)
    wanted = {
        Special.BOS: "<s>",
        Special.RAW_OPEN: "<s>",
        Special.COMPRESSED_OPEN: "<s>",
        Special.EOS: "</s>",
        Special.RAW_CLOSE: "</s>",
        Special.PAD: "<pad>",
        Special.HEADER_START: "<|im_start|>",
        Special.END_OF_TURN: "<|im_end|>",
    }
    assert {special: int(table[special]) for special in wanted} == {s: vocab[token] for s, token in wanted.items()}
    rows = torch.randn(len(vocab), 3, dtype=torch.float64)
    made = raw_rows(rows, torch.zeros(256, 3), table)
    assert made.shape == (NUM_RAW_SYMBOLS, 3)
    for special, token in wanted.items():
        assert torch.equal(made[special], rows[vocab[token]])
    unmapped = np.flatnonzero(table < 0)[0]
    torch.testing.assert_close(made[unmapped], rows.mean(dim=0), rtol=0, atol=1e-6)
