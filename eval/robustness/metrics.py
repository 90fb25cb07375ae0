"""ReCode's three metrics (Wang et al. 2022, section 4), over the worst of several seeds."""

from dataclasses import dataclass

import numpy as np

from proxybyte.eval.code.pass_at_k import Estimate, estimate, pass_at_k


@dataclass(frozen=True)
class Robustness:
    """How much is left of a score in the worst case.

    Attributes:
        nominal: pass@k of the unperturbed prompts.
        robust: RP_s@k, pass@k where a sample counts as right only if it is right under every seed.
        drop: RD_s@k, ``(nominal - robust) / nominal``; NaN where ``nominal`` is 0.
        change: RR_s@k, the share of answers that the worst case turns, to wrong or to right.
    """

    nominal: Estimate
    robust: Estimate
    drop: float
    change: float


def robustness(nominal: np.ndarray, perturbed: np.ndarray, k: int = 1) -> Robustness:
    """The metrics from which samples passed.

    With ``w_i(x) = min over seeds of c(f_i(x_s))``, ``rc(x) = sum_i w_i(x)``, and ``rc-(x)``, ``rc+(x)`` the numbers of
    samples ``i`` whose verdict falls from right to wrong and rises from wrong to right between nominal and worst::

        RP_s@k = E_x[pass@k(n, rc(x))]      RD_s@k = (pass@k - RP_s@k) / pass@k
        RR_s@k = E_x[pass@k(n, rc-(x)) + pass@k(n, rc+(x))]

    Args:
        nominal: booleans of shape ``(P, n)``: problem, sample.
        perturbed: booleans of shape ``(S, P, n)``: seed (or any other variant), problem, sample.
        k: of pass@k.
    """
    worst = perturbed.all(axis=0)
    drawn = np.full(len(nominal), nominal.shape[1])
    at_first = estimate(pass_at_k(drawn, nominal.sum(axis=1), k))
    at_worst = estimate(pass_at_k(drawn, worst.sum(axis=1), k))
    fallen = pass_at_k(drawn, (nominal & ~worst).sum(axis=1), k)
    risen = pass_at_k(drawn, (~nominal & worst).sum(axis=1), k)
    drop = (at_first.mean - at_worst.mean) / at_first.mean if at_first.mean else float("nan")
    return Robustness(at_first, at_worst, drop, float((fallen + risen).mean()))
