r"""Means with intervals, and paired tests over seeds.

* Interval of a mean (Student 1908): :math:`\bar x \pm t_{n-1} s / \sqrt n`.
* Paired t test: the t test of the differences ``a - b`` against zero; its p-value is two-sided.
* Sign-flip test (Fisher 1935): the share of all :math:`2^n` choices of signs whose mean difference is at least as far
  from zero as the one that was found. It assumes no distribution; with 3 seeds it cannot fall below 1/4.
* Holm's step-down correction (Holm 1979) for several comparisons with one baseline.

Written out because the package does not depend on SciPy; tests compare every function with it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TINY = 1e-300
_STEPS = 300
_BISECTIONS = 200
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
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(0.5 + level / 2, n - 1) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, deviation, n)


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, resamples: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979); for many values, such as documents, not for three seeds.

    Raises:
        ValueError: if there is no value.
    """
    data = np.asarray(values, np.float64)
    if len(data) == 0:
        raise ValueError("an interval needs at least one value")
    picks = np.random.default_rng(seed).integers(0, len(data), (resamples, len(data)))
    low, high = np.quantile(data[picks].mean(axis=1), [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def paired_test(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> PairedTest:
    """Test whether ``a`` differs from ``b``, pair by pair.

    Raises:
        ValueError: if the lengths differ or there is no pair.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values cannot be paired with {len(b)}")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    interval = mean_interval(differences, level)
    if interval.n < 2:
        return PairedTest(interval, math.nan, math.nan, _sign_flip(differences))
    error = interval.deviation / math.sqrt(interval.n)
    if error:
        t = interval.mean / error
    elif interval.mean:
        t = math.copysign(math.inf, interval.mean)
    else:
        t = math.nan
    p = math.nan if math.isnan(t) else 2 * t_tail(abs(t), interval.n - 1)
    return PairedTest(interval, t, p, _sign_flip(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given; ``nan`` stays and does not count."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def t_tail(t: float, degrees: float) -> float:
    """Probability that a t variable of ``degrees`` degrees of freedom exceeds ``t >= 0``."""
    if math.isinf(t):
        return 0.0
    square = t * t
    if square < degrees:  # the share left of a middle near 1/2 is known better than the one right of it
        return 0.5 - 0.5 * _beta_share(0.5, degrees / 2, square / (degrees + square))
    return 0.5 * _beta_share(degrees / 2, 0.5, degrees / (degrees + square))


def t_quantile(p: float, degrees: float) -> float:
    """The value that a t variable of ``degrees`` degrees of freedom stays below with probability ``p`` in (0.5, 1)."""
    high = 1.0
    while t_tail(high, degrees) > 1 - p:
        high *= 2
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_tail(middle, degrees) > 1 - p else (low, middle)
    return (low + high) / 2


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


def _beta_share(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _beta_fraction(a, b, x))


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Continued fraction ``1 + d_1 / (1 + d_2 / (1 + ...))`` of the incomplete beta function (DLMF 8.17.22), by the
    modified method of Lentz.
    """
    value, numerator, denominator = 1.0, 1.0, 0.0
    for step in range(1, _STEPS):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / _away_from_zero(1 + term * denominator)
        numerator = _away_from_zero(1 + term / numerator)
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-16:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
