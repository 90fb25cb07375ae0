r"""Means with intervals, and paired tests over seeds.

* Interval of a mean (Student 1908): :math:`\bar x \pm t_{n-1} s / \sqrt n`.
* Paired t test: SciPy's, of the differences ``a - b`` against zero; its p-value is two-sided.
* Sign-flip test (Fisher 1935): the share of all :math:`2^n` choices of signs whose mean difference is at least as far
  from zero as the one that was found. It assumes no distribution; with 3 seeds it cannot fall below 1/4.
* Holm's step-down correction (Holm 1979) for several comparisons with one baseline.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

LEAST_FOR_AN_INTERVAL = 3
"""Values of which a report shows the interval: of two it is 12.7 standard errors wide on either side."""
_MOST_FLIPPED = 16


@dataclass(frozen=True)
class Interval:
    """A mean and the interval in which it lies with the given level; infinite for a single value."""

    mean: float
    low: float
    high: float
    deviation: float
    """Standard deviation of the values (n - 1); 0 for a single one."""
    n: int


@dataclass(frozen=True)
class PairedTest:
    """Differences ``a - b`` over pairs.

    Attributes:
        difference: its mean and interval.
        t: statistic; ``nan`` for fewer than two pairs.
        p: two-sided p-value of the t test; ``nan`` for fewer than two pairs.
        p_sign_flip: of the exact sign-flip test; ``nan`` for no pair or more than 16.
    """

    difference: Interval
    t: float
    p: float
    p_sign_flip: float


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of ``values`` with the t interval of ``level``.

    Raises:
        ValueError: if there is no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 0.0, 1)
    deviation = statistics.stdev(values)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, deviation, n)


def paired_test(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> PairedTest:
    """Test whether ``a`` differs from ``b``, pair by pair.

    Raises:
        ValueError: if the lengths differ or there is no pair.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values cannot be paired with {len(b)}")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    interval = mean_interval(differences, level)
    if interval.n < 2 or not any(differences):
        return PairedTest(interval, math.nan, math.nan, _sign_flip(differences))
    if not interval.deviation:
        return PairedTest(interval, math.copysign(math.inf, interval.mean), 0.0, _sign_flip(differences))
    test = stats.ttest_1samp(differences, 0.0)
    return PairedTest(interval, float(test.statistic), float(test.pvalue), _sign_flip(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given; ``nan`` stays and does not count."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _sign_flip(differences: Sequence[float]) -> float:
    if not 0 < len(differences) <= _MOST_FLIPPED:
        return math.nan
    found = abs(math.fsum(differences))
    # What equals the sum found must count as such, though its terms are added in another order.
    limit = found * (1 - 1e-12)
    sums = [
        abs(math.fsum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(total >= limit for total in sums) / len(sums)
