"""Whoever needs to know where a phase begins in a run says the same: rows, metrics and the plan's report."""

import json

import numpy as np
import pytest

from proxybyte.training.run.assemble import open_data
from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import main, train

PHASES = (
    "plan.budget_unit=epochs",
    "plan.budget=6",
    "plan.schedule={rate: 0.5, warmup: 0.25, warmup_rate: 0.5, decay: 0.25, decay_rate: 0.0}",
    "batch.shuffle_steps=3",
)


@pytest.mark.parametrize("unit", ["epochs", "text_bytes", "symbols"])
def test_no_step_of_a_phase_shows_rows_of_another(recipe, unit):
    budget = {"epochs": 6, "text_bytes": 80_000, "symbols": 40_000}[unit]
    config = load_config(recipe(), [*PHASES, f"plan.budget_unit={unit}", f"plan.budget={budget}"])
    data = open_data(config)
    order, total = data.row_order(config.batch, config.plan.seed), data.steps
    assert total == data.dataset.plan.num_rows // 4
    # A quarter of the steps at each end, whatever the budget counts.
    first, last = order.phases
    assert abs(first - total / 4) <= 1
    assert abs(last - 3 * total / 4) <= 1
    for begin, end in ((0, first), (first, last), (last, total)):
        rows = np.concatenate([order.rows(step) for step in range(begin, end)])
        assert sorted(rows) == list(range(4 * begin, 4 * end))


def test_metrics_name_the_phase_of_each_step(recipe):
    config = load_config(recipe(), [*PHASES, "plan.budget=1", "evaluation.every=0"])
    train(config)
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    phases = [line["phase"] for line in lines]
    counts = [phases.count(name) for name in ("warmup", "steady", "decay")]
    assert sum(counts) == len(lines)
    assert abs(counts[0] - len(lines) / 4) <= 1
    assert abs(counts[2] - len(lines) / 4) <= 1
    assert phases == ["warmup"] * counts[0] + ["steady"] * counts[1] + ["decay"] * counts[2]


def test_the_plan_that_is_shown_says_at_which_step_each_phase_begins(recipe, capsys):
    assert main(["--config", str(recipe()), "--dry-run", "plan.schedule.decay=0.5"]) == 0
    # 32 rows, 4 a step: 8 steps, of which a fifth is warm-up and the second half decay.
    assert "warmup from step 0, steady from step 2, decay from step 4" in capsys.readouterr().out
