"""What is matched is equal, by what the runs themselves count."""

import json

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.flops import training_flops
from proxybyte.symbols import View
from proxybyte.training.experiments.cell_run import settle_length
from proxybyte.training.experiments.grid import expand
from proxybyte.training.experiments.schema import MatchBy
from proxybyte.training.experiments.shared_data import Artefacts
from proxybyte.training.run.assemble import model_source, open_data
from proxybyte.training.stream.plan_report import report


@pytest.fixture(scope="session")
def cells(finished, plan_values):
    """Cells of seed 0 by arm, with their data."""
    from proxybyte.training.experiments.schema import parse_plan

    plan = parse_plan(plan_values, "tiny.yaml")
    shared = Artefacts(plan, finished / "shared")
    return {
        cell.arm: cell.config.model_copy(update={"data": shared.prepared(cell.compressor)})
        for cell in expand(plan)
        if cell.seed == 0
    }


def test_equal_flops_are_met_to_half_a_step_by_what_each_run_logs(finished):
    seen = {}
    for folder in sorted((finished / "cells").iterdir()):
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        last = [line for line in lines if line["kind"] == "train"][-1]
        result = json.loads((folder / "result.json").read_text())
        assert result["flops"] == last["flops"]
        assert result["steps"] == last["step"]
        assert abs(last["flops"] - 4.0e8) <= 0.5 * last["flops"] / last["step"]
        seen[folder.name] = last["step"]
    # 600 rows of the head cost more than 320: fewer steps for the same FLOPs.
    assert seen["tokenizer-seed0"] < seen["bytes-seed0"]


def test_flops_are_those_of_the_model_that_is_trained(cells):
    for config in cells.values():
        length = settle_length(config, MatchBy.FLOPS, 3e8)
        data = open_data(length.config)
        model = model_source(length.config, data.num_codes).make(None)
        rows = length.steps * config.batch.rows_per_step
        assert length.flops == rows * training_flops(model.config, config.plan.row_length, data.document_length)
        assert data.steps == length.steps


def test_equal_symbols_are_whole_steps(cells):
    for config in cells.values():
        length = settle_length(config, MatchBy.SYMBOLS, 20_000)
        assert length.steps == round(20_000 / 256)
        assert length.config.plan.budget == length.steps * 256


def test_equal_data_shows_each_arm_the_same_text(cells):
    longest = 2000  # of a document; the last one is shown whole
    for config in cells.values():
        plan = open_data(settle_length(config, MatchBy.DATA, 60_000).config).dataset.plan
        text = plan.lengths.n_bytes[plan.placements.document].sum()
        pairs = plan.lengths.n_bytes[plan.placements.document][plan.placements.form == 6].sum()
        assert 60_000 <= text - pairs <= 60_000 + longest


@pytest.mark.parametrize("raw_share", [0.5, 0.2])
def test_equal_raw_data_comes_with_compressed_text_on_top(cells, raw_share):
    schedule = cells["proxy"].plan.schedule.model_copy(update={"rate": 1 - raw_share, "warmup": 0.0})
    config = cells["proxy"]
    config = config.model_copy(update={"plan": config.plan.model_copy(update={"schedule": schedule})})
    length = settle_length(config, MatchBy.RAW_DATA, 100_000)
    shares = report(open_data(length.config).dataset.plan).shares
    seen = {view: sum(share.text_bytes for share in shares if share.view is view) for view in View}
    assert seen[View.RAW] == pytest.approx(100_000, rel=0.01)
    assert seen[View.COMPRESSED] == pytest.approx(100_000 * (1 - raw_share) / raw_share, rel=0.1)


def test_a_budget_of_less_than_a_step_is_refused(cells):
    with pytest.raises(ProxyByteError, match=r"the budget buys 0\.0\d+ optimizer steps: raise match\.budget"):
        settle_length(cells["bytes"], MatchBy.FLOPS, 1e6)
