import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.errors import ProxyByteError
from proxybyte.eval.scoring import WindowRule, plan_windows

rules = st.integers(1, 12).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))
spans = st.integers(0, 60).flatmap(lambda length: st.tuples(st.just(length), st.integers(0, length)))


def plan(cases, rule):
    lengths, first = (np.array(column, dtype=np.int64) for column in zip(*cases, strict=True))
    return plan_windows(lengths, WindowRule(*rule), first)


@given(st.lists(spans, min_size=1, max_size=6), rules)
def test_every_symbol_after_the_context_is_scored_exactly_once(cases, rule):
    table = plan(cases, rule)
    counts = [np.zeros(length, dtype=int) for length, _ in cases]
    for sequence, scored, end in zip(table.sequence, table.score_from, table.end, strict=True):
        counts[sequence][scored:end] += 1
    for (_, first), count in zip(cases, counts, strict=True):
        assert (count[:first] == 0).all()
        assert (count[first:] == 1).all()


@given(st.lists(spans, min_size=1, max_size=6), rules)
def test_no_window_is_longer_than_the_rule_and_each_scores_something(cases, rule):
    table = plan(cases, rule)
    assert (table.lengths <= rule[0]).all()
    assert (table.start <= table.score_from).all()
    assert (table.score_from < table.end).all()


@given(st.lists(spans, min_size=1, max_size=6), rules)
def test_all_but_a_sequences_first_symbols_have_window_less_stride_of_context(cases, rule):
    window, stride = rule
    table = plan(cases, rule)
    context = table.score_from - table.start
    first_of_text = table.start == 0
    assert (context[~first_of_text] >= window - stride).all()


@given(st.integers(1, 60), rules)
def test_context_dropped_from_the_left_is_as_little_as_fits(length, rule):
    window, stride = rule
    scored = min(length, stride)
    table = plan([(length, length - scored)], rule)
    assert len(table) == 1
    assert int(table.start[0]) == max(0, length - window)


@pytest.mark.parametrize(("window", "stride"), [(4, 0), (4, 5), (0, 0)])
def test_a_rule_that_would_skip_or_loop_is_refused(window, stride):
    with pytest.raises(ProxyByteError, match="stride"):
        WindowRule(window, stride)
