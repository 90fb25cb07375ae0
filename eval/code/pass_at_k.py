"""The unbiased estimator of pass@k, and intervals over problems."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

_RESAMPLES = 10_000


def pass_at_k(samples: np.ndarray, correct: np.ndarray, k: int) -> np.ndarray:
    """Chance that one of ``k`` samples drawn without replacement is correct (Chen et al. 2021, equation 1).

    ``1 - C(n - c, k) / C(n, k)``, as a product of ``k`` factors between 0 and 1, so that nothing overflows or cancels.

    Args:
        samples: ``n`` of each problem, integers of shape ``(P,)``, none below ``k``.
        correct: ``c`` of each, shape ``(P,)``.
        k: at least 1.

    Returns:
        float64 of shape ``(P,)``.

    Raises:
        ValueError: if ``k`` is below 1 or a problem has fewer samples.
    """
    samples, correct = np.asarray(samples, np.float64), np.asarray(correct, np.float64)
    if k < 1 or (samples < k).any():
        raise ValueError(f"pass@{k} needs {k} samples of every problem, and k of at least 1")
    drawn = np.arange(k, dtype=np.float64)[:, None]
    factors = np.clip((samples - correct - drawn) / (samples - drawn), 0.0, 1.0)
    return 1.0 - factors.prod(axis=0)


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with an interval at 95%."""

    mean: float
    low: float
    high: float


def estimate(values: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of per-problem ``values`` in ``[0, 1]``, shape ``(P,)``, with an interval over problems.

    Where every value is 0 or 1 it is Wilson's score interval, right at both ends and for few problems; elsewhere the
    percentile bootstrap over problems, of 10,000 resamples.
    """
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    if np.isin(values, (0.0, 1.0)).all():
        return Estimate(mean, *_wilson(mean, len(values)))
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(values), size=(_RESAMPLES, len(values)), dtype=np.int32)
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return Estimate(mean, float(low), float(high))


def _wilson(share: float, count: int) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.975)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Rounding must not leave the share outside.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
