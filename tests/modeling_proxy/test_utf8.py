import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxybyte import decode_bytes, encode_bytes
from proxybyte.logits_processors import MISSING_BYTES, UTF8_TRANSITIONS, Utf8LogitsProcessor, Utf8State
from proxybyte.symbols import Special


def run(data: bytes) -> int:
    state = Utf8State.BORDER
    for byte in data:
        state = UTF8_TRANSITIONS[state, byte]
    return state


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def allowed_bytes(processor: Utf8LogitsProcessor, rows: torch.Tensor, vocabulary: int = 320) -> torch.Tensor:
    return processor(rows, torch.zeros(len(rows), vocabulary)).isfinite()


def test_the_automaton_accepts_every_character_and_nothing_else():
    points = np.r_[0:0xD800, 0xE000:0x110000].astype("<u4")
    encoded = np.frombuffer(points.tobytes().decode("utf-32-le").encode(), dtype=np.uint8)
    lengths = np.select([points < 0x80, points < 0x800, points < 0x10000], [1, 2, 3], 4)
    starts = np.cumsum(lengths) - lengths
    state = np.zeros(len(points), dtype=np.int64)
    for offset in range(4):
        inside = offset < lengths
        assert offset == 0 or not (state[inside] == Utf8State.BORDER).any()
        state[inside] = UTF8_TRANSITIONS[state[inside], encoded[starts[inside] + offset]]
    assert (state == Utf8State.BORDER).all()
    # Nothing else: as many byte strings lead from border to border as there are characters of that length.
    paths = np.zeros(len(Utf8State), dtype=np.int64)
    paths[Utf8State.BORDER] = 1
    for length in (1, 2, 3, 4):
        step = np.zeros_like(paths)
        for origin, count in enumerate(paths):
            np.add.at(step, UTF8_TRANSITIONS[origin], count)
        assert step[Utf8State.BORDER] == (lengths == length).sum()
        paths = step
        paths[[Utf8State.BORDER, Utf8State.INVALID]] = 0
    assert not paths.any()


@given(st.binary(max_size=12))
def test_the_automaton_agrees_with_python(data):
    assert (run(data) == Utf8State.BORDER) == is_utf8(data)


def test_missing_bytes_are_the_shortest_way_to_a_border():
    for state in range(Utf8State.INVALID):
        reach, steps = {state}, 0
        while Utf8State.BORDER not in reach:
            reach = {int(after) for origin in reach for after in UTF8_TRANSITIONS[origin]} - {Utf8State.INVALID}
            steps += 1
        assert steps == MISSING_BYTES[state]


@given(st.text(max_size=6), st.integers(0, 3))
def test_the_state_is_read_off_the_last_symbols(text, cut):
    data = text.encode()[: max(0, len(text.encode()) - cut)]
    rows = torch.tensor([[Special.PAD, Special.RAW_OPEN, *encode_bytes(data).tolist()]])
    assert Utf8LogitsProcessor().states(rows).item() == run(data)


@pytest.mark.parametrize("rows", [4_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_random_steps_are_valid_utf8_for_python(rows):
    generator = torch.Generator().manual_seed(rows)
    steps = 250
    processor = Utf8LogitsProcessor(max_length=1 + steps)
    symbols = torch.full((rows, 1 + steps), int(Special.RAW_OPEN))
    for at in range(1, 1 + steps):
        mask = allowed_bytes(processor, symbols[:, :at])
        mask[:, :64] = False
        # A quarter of the rows draw among the bytes of long characters only, where there is a choice.
        score = torch.rand(mask.shape, generator=generator) * mask
        score[::4, 64 : 64 + 0xC2] *= 1e-9
        symbols[:, at] = score.argmax(1)
    texts = [decode_bytes(row).decode() for row in symbols.numpy()]
    assert sum(len(text.encode()) for text in texts) == rows * steps
    assert {len(character.encode()) for character in set("".join(texts[:100]))} == {1, 2, 3, 4}


def test_exactly_the_bytes_that_python_would_accept_are_let_through():
    prefixes = [
        b"",
        b"a",
        b"\xc3",
        b"\xe0",
        b"\xe1\x80",
        b"\xed",
        b"\xf0",
        b"\xf0\x90",
        b"\xf1\x80\x80",
        b"\xf4",
        b"\xf4\x8f",
    ]
    for prefix in prefixes:
        mask = allowed_bytes(Utf8LogitsProcessor(), torch.tensor([[12, *encode_bytes(prefix).tolist()]]))[0]
        for byte in range(256):
            grown = prefix + bytes([byte])
            assert mask[64 + byte] == any(
                is_utf8(grown + tail)
                for tail in (
                    b"",
                    b"\x80",
                    b"\xa0",
                    b"\x80\x80",
                    b"\x90\x80",
                    b"\xa0\x80",
                    b"\x80\x80\x80",
                    b"\x90\x80\x80",
                )
            )


def test_what_is_no_byte_comes_between_characters_only():
    rows = torch.tensor([[12, 64 + 0xC3], [12, 64 + 0x61]])
    mask = allowed_bytes(Utf8LogitsProcessor(), rows, vocabulary=400)
    assert not mask[0, :64].any()
    assert not mask[0, 320:].any()
    assert mask[1, Special.EOS]
    assert mask[1, Special.RAW_CLOSE]


@given(st.lists(st.text(max_size=4), min_size=1, max_size=4))
def test_a_left_padded_batch_is_each_row_alone(texts):
    alone = [[12, *encode_bytes(text.encode()[:-1]).tolist()] for text in texts]
    width = max(map(len, alone))
    batch = torch.tensor([[0] * (width - len(row)) + row for row in alone])
    masks = allowed_bytes(Utf8LogitsProcessor(), batch)
    for row, mask in zip(alone, masks, strict=True):
        assert torch.equal(mask, allowed_bytes(Utf8LogitsProcessor(), torch.tensor([row]))[0])


@pytest.mark.parametrize(("room", "longest"), [(1, 1), (2, 2), (3, 3), (4, 4), (9, 4)])
def test_no_character_is_begun_that_the_limit_would_cut(room, longest):
    processor = Utf8LogitsProcessor(max_length=1 + room)
    mask = allowed_bytes(processor, torch.tensor([[12]]))[0, 64:]
    leads = {1: 0x61, 2: 0xC3, 3: 0xE1, 4: 0xF1}
    assert [length for length, lead in leads.items() if mask[lead]] == list(range(1, longest + 1))


def test_a_prompt_cut_by_the_limit_still_has_a_way_on():
    mask = allowed_bytes(Utf8LogitsProcessor(max_length=3), torch.tensor([[12, 64 + 0xF0]]))[0]
    assert mask.sum() == 0x30


def test_after_a_broken_prompt_valid_text_follows():
    for tail in (b"\xff", b"\x80\x80\x80", b"\xe0\x80", b"\xc3\x28"):
        rows = torch.tensor([[12, *encode_bytes(tail).tolist()]])
        assert Utf8LogitsProcessor().states(rows).item() == Utf8State.BORDER
