import torch
from hypothesis import given
from hypothesis import strategies as st

from proxybyte import encode_bytes
from proxybyte.eval.stopping import StopAtBytes, cut_at_stop

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


def test_rows_of_a_batch_end_on_their_own():
    rows = [[12, *encode_bytes(text)] for text in (b"ab\ncd", b"abxcd", b"\nbxcd")]
    assert StopAtBytes([b"\n"], prompt_length=2)(torch.tensor(rows), None).tolist() == [True, False, False]


@given(texts, stops)
def test_text_is_cut_before_the_first_stop_in_it(text, stops):
    cut = cut_at_stop(text, stops)
    assert text.startswith(cut)
    assert not any(stop in cut for stop in stops)
    assert cut == text or any(text[len(cut) :].startswith(stop) for stop in stops)
