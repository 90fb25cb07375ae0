"""ReCode's metrics against their definitions, spelled out."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.eval.robustness.measuring import robustness


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


@given(st.data())
def test_relative_change_is_what_the_authors_code_counts(data):
    """Their loop over tasks and completions, written from its description: worst first, then best."""
    seeds, problems, n = (data.draw(st.integers(1, high)) for high in (5, 4, 4))
    k = data.draw(st.integers(1, n))
    bits = data.draw(st.lists(st.booleans(), min_size=(seeds + 1) * problems * n, max_size=(seeds + 1) * problems * n))
    all_bits = np.array(bits).reshape(seeds + 1, problems, n)
    expected = 0.0
    for x in range(problems):
        negative, positive = [False] * n, [False] * n
        for i in range(n):
            verdicts = [bool(all_bits[s + 1, x, i]) for s in range(seeds)]
            before = bool(all_bits[0, x, i])
            if before != min(verdicts):
                negative[i] = True
            elif before != max(verdicts):
                positive[i] = True
        expected += (share_of_draws(negative, k) + share_of_draws(positive, k)) / problems
    assert robustness(all_bits[0], all_bits[1:], k).relative == pytest.approx(expected)


def test_with_one_sample_relative_change_is_the_share_of_tasks_that_any_seed_turns():
    rng = np.random.default_rng(5)
    nominal, perturbed = rng.random((200, 1)) < 0.4, rng.random((5, 200, 1)) < 0.4
    turned = sum(any(perturbed[s, x, 0] != nominal[x, 0] for s in range(5)) for x in range(200))
    worst = sum(nominal[x, 0] != all(perturbed[s, x, 0] for s in range(5)) for x in range(200))
    found = robustness(nominal, perturbed)
    assert (found.relative, found.change) == (turned / 200, worst / 200)
    assert found.change < found.relative


def test_an_answer_that_some_seeds_put_right_counts_in_one_of_the_two():
    nominal = np.array([[False], [True]])
    perturbed = np.array([[[True], [True]], [[False], [True]]])
    found = robustness(nominal, perturbed)
    assert (found.relative, found.change, found.robust.mean) == (0.5, 0.0, 0.5)


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
