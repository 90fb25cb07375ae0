"""Changes to a text do what they say, and no more."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.hub_configs.demo.drawing import Change, changed, compare

TEXT = "def mean(values):\n    total = 0\n\n    return total / len(values)\n"
texts = st.text(st.characters(codec="utf-8"), max_size=60)
seeds = st.integers(0, 1000)


def removed(text: str, place: int) -> str:
    return text[:place] + text[place + 1 :]


@given(texts, seeds)
def test_a_swap_exchanges_two_neighbours(text, seed):
    after = changed(text, Change.SWAP, seed)
    apart = [place for place, pair in enumerate(zip(text, after, strict=True)) if pair[0] != pair[1]]
    assert Counter(after) == Counter(text)
    assert not apart or (len(apart) == 2 and apart[1] == apart[0] + 1)


@given(texts, seeds)
def test_a_loss_and_a_doubling_are_one_letter(text, seed):
    lost, doubled = changed(text, Change.LOSS, seed), changed(text, Change.DOUBLING, seed)
    assert lost == text or lost in {removed(text, place) for place in range(len(text))}
    assert doubled == text or text in {removed(doubled, place) for place in range(len(doubled))}


@given(texts, st.sampled_from([Change.TABS, Change.SPACES, Change.BLANK_LINES, Change.WINDOWS]))
def test_a_reformat_changes_white_space_alone(text, change):
    assert "".join(changed(text, change).split()) == "".join(text.split())


@pytest.mark.parametrize("change", list(Change))
def test_each_finds_something_in_code_and_nothing_where_there_is_nothing(change):
    assert changed(TEXT, change) != TEXT
    assert changed("", change) == ""


def test_seeds_pick_places_and_repeat():
    many = {changed(TEXT, Change.SWAP, seed) for seed in range(30)}
    assert len(many) > 5
    assert changed(TEXT, Change.SWAP, 4) == changed(TEXT, Change.SWAP, 4)


def levenshtein(a, b) -> int:
    """By the textbook's table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, above[j] + 1, above[j - 1] + (x != y)))
    return row[-1]


def test_a_comparison_counts_edits_of_bytes_and_of_symbols(demo_model):
    before, after = b"def f(self):", b"def f(slef):x"
    compared = compare(demo_model, before, after)
    codes = [[one.codes.tolist() for one in demo_model.compressed(text)] for text in (before, after)]
    expected = [levenshtein(before, after), *(levenshtein(*pair) for pair in zip(*codes, strict=True))]
    assert [one.edits for one in compared.symbols] == expected
    assert compared.before.bits.sum() == pytest.approx(demo_model.bits(before).sum())
    rest = [
        bytes(b for i, b in enumerate(side.text) if i not in side.marked) for side in (compared.before, compared.after)
    ]
    assert rest[0] == rest[1] and len(rest[0]) >= 10, "what is not marked is alike"
