"""What every group of benchmarks needs: the row of a figure, and the best time of several."""

import time
from collections.abc import Callable
from typing import Any


def figure(name: str, value: float, baseline: float, unit: str) -> dict[str, Any]:
    """The row of a figure of which more is better, beside its baseline."""
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "ratio": value / baseline}


def fastest(
    work: Callable[[], Any], repeats: int = 3, clock: Callable[[], float] = time.process_time
) -> tuple[float, Any]:
    """Seconds of the fastest of ``repeats`` calls, by ``clock``, and what ``work`` returned last."""
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        result = work()
        best = min(best, clock() - start)
    return best, result
