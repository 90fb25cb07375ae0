"""Runs of 1, 2 and 4 real processes over gloo: the same rows, the same losses, and checkpoints that any of them reads."""

import json

import pytest

from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train

FSDP = "compute.parallel=fsdp"
LAST = "step-00000008"
ONE_ROW = {"batch": {"rows_per_step": 4, "rows_per_device": 1}}
"""Four processes take a row each."""


def lines(run):
    """Of training, what must be equal and what may be rounded otherwise."""
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    counted = ("step", "phase", "targets", "symbols", "raw/bytes", "compressed/bytes", "raw/documents", "flops")
    exact = [{key: line.get(key) for key in counted} for line in read if line["kind"] == "train"]
    rounded = [(line["loss"], line["grad_norm"]) for line in read if line["kind"] == "train"]
    return exact, [pytest.approx(pair, rel=2e-5) for pair in rounded]


@pytest.fixture
def alone(recipe, tmp_path):
    """The run of one process, whose checkpoint of step 4 stays."""
    config = load_config(recipe(**ONE_ROW), [f"output={tmp_path / 'alone'}"])
    train(config)
    return config.output


def losses(run):
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in read if line["kind"] == "train"]


@pytest.mark.parametrize(("processes", "parallel"), [(2, "ddp"), (4, "ddp"), (2, "fsdp"), (4, "fsdp")])
def test_rows_and_losses_are_those_of_one_process(recipe, run_ranks, tmp_path, alone, processes, parallel):
    run_ranks(processes, recipe(**ONE_ROW), f"compute.parallel={parallel}")
    exact, rounded = lines(alone)
    assert lines(tmp_path / "run")[0] == exact
    assert losses(tmp_path / "run") == rounded
