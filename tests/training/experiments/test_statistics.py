"""Intervals and tests against SciPy's own."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from proxybyte.training.experiments.statistics import holm, mean_interval, paired_test

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9).filter(lambda values: np.std(values) > 1e-3)


@given(values=VALUES, level=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@settings(deadline=None)
def test_the_interval_of_a_mean_is_scipys(values, level):
    interval = mean_interval(values, level)
    low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-8, abs=1e-8)
    assert interval.deviation == pytest.approx(np.std(values, ddof=1))


@given(differences=VALUES, seed=st.integers(0, 99))
@settings(deadline=None)
def test_the_paired_test_is_scipys(differences, seed):
    b = np.random.default_rng(seed).normal(size=len(differences))
    a = b + np.array(differences)
    ours, theirs = paired_test(a.tolist(), b.tolist()), stats.ttest_rel(a, b)
    assert ours.t == pytest.approx(theirs.statistic, rel=1e-6, abs=1e-9)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_the_sign_flip_test_is_scipys_exact_permutation_test(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.5, 1, n), rng.normal(0, 1, n)
    exact = stats.permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=np.inf)
    # SciPy doubles the smaller tail, which for sign flips is the same: they are symmetric.
    assert paired_test(a.tolist(), b.tolist()).p_sign_flip == pytest.approx(exact.pvalue)


def test_three_seeds_that_agree_have_a_sign_flip_p_of_a_quarter():
    assert paired_test([1.0, 2.0, 3.0], [0.5, 1.0, 2.0]).p_sign_flip == 0.25


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_adjusts_by_its_definition(p_values):
    adjusted = holm(p_values)
    ranks = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for position, index in enumerate(ranks):
        # The largest over all hypotheses that are rejected no later than this one.
        steps = [(len(p_values) - earlier) * p_values[ranks[earlier]] for earlier in range(position + 1)]
        assert adjusted[index] == pytest.approx(min(1.0, max(steps)))


def test_one_pair_tells_nothing_of_spread_and_equal_pairs_nothing_at_all():
    single = paired_test([1.0], [2.0])
    assert single.difference.mean == -1.0
    assert math.isinf(single.difference.high)
    assert math.isnan(single.p)
    assert math.isnan(paired_test([1.0, 2.0], [1.0, 2.0]).p)
    assert math.isnan(holm([math.nan, 0.5])[0])
    assert holm([math.nan, 0.5])[1] == 0.5


def test_values_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        paired_test([1.0, 2.0, 3.0], [1.0, 2.0])
