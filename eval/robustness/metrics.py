"""ReCode's three metrics (Wang et al. 2022, section 4), over the worst of several seeds."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from proxybyte.eval.code.pass_at_k import Estimate, estimate, pass_at_k


@dataclass(frozen=True)
class Robustness:
    """How much is left of a score in the worst case.

    Attributes:
        nominal: pass@k of the unperturbed prompts.
        robust: RP_s@k, pass@k where a sample counts as right only if it is right under every seed.
        drop: RD_s@k, ``(nominal - robust) / nominal``; NaN where ``nominal`` is 0.
        relative: RR_s@k as ReCode's released code counts it: the share of answers that any seed turns, to wrong or to
            right. The worst case alone cannot see an answer that some seeds put right and others do not.
        change: the share of answers that the worst case turns.
    """

    nominal: Estimate
    robust: Estimate
    drop: float
    relative: float
    change: float


def robustness(nominal: np.ndarray, perturbed: np.ndarray, k: int = 1) -> Robustness:
    """The metrics from which samples passed.

    With ``w_i(x) = min over seeds of c(f_i(x_s))``, ``b_i(x) = max over seeds``, ``rc(x) = sum_i w_i(x)``, ``rc-(x)``
    the number of samples ``i`` whose nominal verdict is not ``w_i``, ``rc+(x)`` of those where it is, but not ``b_i``
    (``report_results_coarse`` in run_robust.py of amazon-science/recode at d49f2a5)::

        RP_s@k = E_x[pass@k(n, rc(x))]      RD_s@k = (pass@k - RP_s@k) / pass@k
        RR_s@k = E_x[pass@k(n, rc-(x)) + pass@k(n, rc+(x))]

    ``change`` has in their place the numbers of samples that fall from right to wrong, and rise from wrong to right,
    between nominal and worst; an earlier revision of their code (04097bc) reported that, for one sample a problem.

    Args:
        nominal: booleans of shape ``(P, n)``: problem, sample.
        perturbed: booleans of shape ``(S, P, n)``: seed (or any other variant), problem, sample.
        k: of pass@k.
    """
    worst, best = perturbed.all(axis=0), perturbed.any(axis=0)
    drawn = np.full(len(nominal), nominal.shape[1])

    def drawn_from(chosen: Any) -> np.ndarray:
        return pass_at_k(drawn, chosen.sum(axis=1), k)

    at_first, at_worst = estimate(drawn_from(nominal)), estimate(drawn_from(worst))
    relative = drawn_from(nominal != worst) + drawn_from((nominal == worst) & (nominal != best))
    change = drawn_from(nominal & ~worst) + drawn_from(~nominal & worst)
    drop = (at_first.mean - at_worst.mean) / at_first.mean if at_first.mean else float("nan")
    return Robustness(at_first, at_worst, drop, float(relative.mean()), float(change.mean()))
