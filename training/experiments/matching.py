"""How long a cell trains: its steps follow from what is matched.

FLOPs of a run are rows times ``row_flops`` of a row, where the length of the documents packed into
a row is that of the run's own plan; that length is measured on a plan, whose length depends on it in turn, so the two
are settled in a few rounds.
"""

from dataclasses import dataclass

import numpy as np

from proxybyte.errors import ProxyByteError
from proxybyte.symbols import View

from ..run.assemble import model_source, open_data, row_flops
from ..run.config import TrainConfig
from ..run.data import TrainingData
from ..stream.plan import BudgetUnit
from ..stream.plan_report import report
from .schema import MatchBy

_ROUNDS = 3
_RAW_DATA_ROUNDS = 20
_RAW_DATA_TOLERANCE = 0.002


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        config: the run with its budget.
        steps: optimizer steps.
        flops: training FLOPs by the formula, of all steps.
    """

    config: TrainConfig
    steps: int
    flops: float


def settle_length(config: TrainConfig, by: MatchBy, budget: float) -> Length:
    """The run as long as ``budget`` allows; over or short of it by half a step at most (of FLOPs and symbols), by
    two thousandths for raw data, or by a document's end for data.

    Args:
        config: the run; its ``data`` is there.
        by: what ``budget`` counts.
        budget: FLOPs, symbols or bytes of text.

    Raises:
        ProxyByteError: if the budget does not buy a single step.
    """
    match by:
        case MatchBy.FLOPS:
            config = _by_flops(config, budget)
        case MatchBy.SYMBOLS:
            config = _with_steps(config, budget / _symbols_per_step(config))
        case MatchBy.DATA:
            config = _with_budget(config, budget, BudgetUnit.TEXT_BYTES)
        case MatchBy.RAW_DATA:
            config = _by_raw_data(config, budget)
    data = open_data(config)
    return Length(config, data.steps, data.steps * config.batch.rows_per_step * _row_flops(config, data))


def _by_flops(config: TrainConfig, budget: float) -> TrainConfig:
    settled = _with_steps(config, 1)
    for _ in range(_ROUNDS):
        per_step = config.batch.rows_per_step * _row_flops(settled, open_data(settled))
        settled = _with_steps(config, budget / per_step)
    return settled


def _by_raw_data(config: TrainConfig, budget: float) -> TrainConfig:
    """By bytes of all text, in rounds: what a longer run shows raw is not quite in proportion to its length."""
    text = budget
    for _ in range(_RAW_DATA_ROUNDS):
        settled = _with_budget(config, text, BudgetUnit.TEXT_BYTES)
        shares = report(open_data(settled).mixed_views.plan).shares
        raw = sum(share.text_bytes for share in shares if share.view is View.RAW)
        if abs(raw / budget - 1) <= _RAW_DATA_TOLERANCE:
            break
        text *= float(np.clip(budget / max(raw, 1), 0.1, 20.0))
    return settled


def _row_flops(config: TrainConfig, data: TrainingData) -> float:
    return row_flops(config, model_source(config, data.num_codes).new_shape(), data)


def _symbols_per_step(config: TrainConfig) -> int:
    return config.batch.rows_per_step * config.plan.row_length


def _with_steps(config: TrainConfig, steps: float) -> TrainConfig:
    """The run in a whole number of steps, the nearest to ``steps``."""
    if steps < 0.5:
        raise ProxyByteError(f"the budget buys {steps:.2g} optimizer steps: raise match.budget or lower the batch")
    return _with_budget(config, max(1, round(steps)) * _symbols_per_step(config), BudgetUnit.SYMBOLS)


def _with_budget(config: TrainConfig, budget: float, unit: BudgetUnit) -> TrainConfig:
    plan = config.plan.model_copy(update={"budget": float(budget), "budget_unit": unit})
    return config.model_copy(update={"plan": plan})
