import torch
from hypothesis import given
from hypothesis import strategies as st

from proxybyte import encode_bytes
from proxybyte.eval.completing import StopAtBytes, cut_at_stop

texts = st.binary(max_size=30).map(lambda data: bytes(byte % 3 + 97 for byte in data))
stops = st.lists(st.binary(min_size=1, max_size=4).map(lambda data: bytes(byte % 3 + 97 for byte in data)), max_size=3)


@given(texts, texts, stops, st.lists(st.integers(1, 7), min_size=30, max_size=30))
def test_a_row_ends_in_the_step_that_completes_a_stop_however_many_symbols_a_step_brings(prompt, text, stops, steps):
    ids = torch.tensor([[12, *encode_bytes(prompt + text)]])
    stop_at = StopAtBytes(stops, prompt_length=1 + len(prompt))
    shown, ended = 0, False
    for step in steps:
        shown = min(len(text), shown + step)
        ended = bool(stop_at(ids[:, : 1 + len(prompt) + shown], None)[0])
        if ended or shown == len(text):
            break
    assert ended == any(stop in text[:shown] for stop in stops)
    if not ended:
        assert shown == len(text)


@given(st.lists(texts, min_size=2, max_size=3), stops, st.randoms(use_true_random=False))
def test_rows_that_grow_at_their_own_pace_end_where_each_would_alone(rows, stops, random):
    """As drafting asks: each step, at every length that some row has just reached, about all rows cut there."""
    width = 1 + max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    for row, text in enumerate(rows):
        ids[row, : 1 + len(text)] = torch.tensor([12, *encode_bytes(text)])
    stop_at, lengths, ends = StopAtBytes(stops, prompt_length=1), [1] * len(rows), [0] * len(rows)
    while any(length <= len(text) and not end for length, text, end in zip(lengths, rows, ends, strict=True)):
        reached = {}
        for row, text in enumerate(rows):
            if not ends[row]:
                goal = min(1 + len(text), lengths[row] + random.randint(1, 4))
                reached.update({(length, row): None for length in range(lengths[row] + 1, goal + 1)})
                lengths[row] = goal + (goal == 1 + len(text))
        for length in sorted({length for length, _ in reached}):
            found = stop_at(ids[:, :length], None).tolist()
            for row in range(len(rows)):
                if (length, row) in reached and found[row] and not ends[row]:
                    ends[row] = length
    for text, end in zip(rows, ends, strict=True):
        first = next((n for n in range(1, len(text) + 1) if any(stop in text[:n] for stop in stops)), None)
        assert end == (0 if first is None else 1 + first)


def test_rows_of_a_batch_end_on_their_own():
    rows = [[12, *encode_bytes(text)] for text in (b"ab\ncd", b"abxcd", b"\nbxcd")]
    assert StopAtBytes([b"\n"], prompt_length=2)(torch.tensor(rows), None).tolist() == [True, False, False]


@given(texts, stops)
def test_text_is_cut_before_the_first_stop_in_it(text, stops):
    cut = cut_at_stop(text, stops)
    assert text.startswith(cut)
    assert not any(stop in cut for stop in stops)
    assert cut == text or any(text[len(cut) :].startswith(stop) for stop in stops)
