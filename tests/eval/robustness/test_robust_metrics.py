"""ReCode's metrics against their definitions, spelled out."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.eval.robustness.metrics import robustness


def share_of_draws(flags: list[bool], k: int) -> float:
    draws = list(combinations(flags, k))
    return sum(map(any, draws)) / len(draws)


@given(st.data())
def test_they_are_the_published_definitions(data):
    seeds, problems, n = (data.draw(st.integers(1, high)) for high in (4, 5, 4))
    k = data.draw(st.integers(1, n))
    bits = data.draw(st.lists(st.booleans(), min_size=(seeds + 1) * problems * n, max_size=(seeds + 1) * problems * n))
    all_bits = np.array(bits).reshape(seeds + 1, problems, n)
    nominal, perturbed = all_bits[0], all_bits[1:]
    plain = robust = change = 0.0
    for x in range(problems):
        worst = [all(perturbed[s, x, i] for s in range(seeds)) for i in range(n)]
        plain += share_of_draws(nominal[x].tolist(), k) / problems
        robust += share_of_draws(worst, k) / problems
        fallen = [bool(nominal[x, i]) and not worst[i] for i in range(n)]
        risen = [not nominal[x, i] and worst[i] for i in range(n)]
        change += (share_of_draws(fallen, k) + share_of_draws(risen, k)) / problems
    found = robustness(nominal, perturbed, k)
    assert found.nominal.mean == pytest.approx(plain)
    assert found.robust.mean == pytest.approx(robust)
    assert found.change == pytest.approx(change)
    if plain:
        assert found.drop == pytest.approx((plain - robust) / plain)
    else:
        assert np.isnan(found.drop)


def test_more_seeds_never_raise_the_robust_score():
    perturbed = np.random.default_rng(0).random((6, 40, 3)) < 0.8
    scores = [robustness(perturbed[0], perturbed[: s + 1]).robust.mean for s in range(6)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]


def test_relative_change_counts_answers_that_turn_either_way():
    nominal = np.array([[True], [True], [False], [False]])
    perturbed = np.array([[[True], [False], [True], [False]]])
    found = robustness(nominal, perturbed)
    assert (found.nominal.mean, found.robust.mean, found.drop, found.change) == (0.5, 0.5, 0.0, 0.5)
