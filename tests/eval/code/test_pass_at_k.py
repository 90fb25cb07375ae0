"""The estimator against its definition: how many of all draws of k samples hold a correct one."""

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.eval.code.pass_at_k import estimate, pass_at_k


def test_it_is_the_share_of_draws_that_hold_a_correct_sample():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations([True] * c + [False] * (n - c), k))
                expected = sum(map(any, draws)) / len(draws)
                assert pass_at_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(expected, abs=1e-15)


@given(st.data())
def test_large_counts_are_exact(data):
    n = data.draw(st.integers(1, 5000))
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, min(n, 300)))
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(float(exact), abs=1e-12)


def test_problems_are_estimated_side_by_side():
    n, c = np.array([5, 10, 20]), np.array([0, 3, 20])
    together = pass_at_k(n, c, 4)
    assert together.tolist() == [pass_at_k(n[i : i + 1], c[i : i + 1], 4)[0] for i in range(3)]
    assert together[0] == 0
    assert together[2] == 1


def test_fewer_samples_than_k_are_refused():
    with pytest.raises(ValueError, match="pass@3 needs 3 samples"):
        pass_at_k(np.array([5, 2]), np.array([1, 1]), 3)


def test_wilsons_interval_has_its_published_ends():
    # 2 of 10 and 0 of 20 at 95%: standard values of the score interval.
    found = estimate(np.array([1.0, 1.0] + [0.0] * 8))
    assert (found.mean, round(found.low, 4), round(found.high, 4)) == (0.2, 0.0567, 0.5098)
    found = estimate(np.zeros(20))
    assert (found.low, round(found.high, 4)) == (0.0, 0.1611)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_an_interval_holds_its_mean(passed):
    found = estimate(np.array(passed, float))
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_the_bootstrap_interval_has_the_width_of_the_standard_error():
    values = np.random.default_rng(1).uniform(size=400)
    found = estimate(values)
    error = values.std(ddof=1) / 20
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)
    assert estimate(values) == found
