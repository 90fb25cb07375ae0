"""Every metric row once, whenever a run is killed; a damaged file is named."""

import json
import re

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.training.run.config_io import load_config
from proxybyte.training.run.metrics import MetricsLog
from proxybyte.training.train import train

TRAIN = b'{"kind": "train", "step": %d}\n'


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["kind"], line["step"]) for line in lines]


EXPECTED = sorted([("evaluation", 0), ("evaluation", 4), ("evaluation", 8), *(("train", step) for step in range(1, 9))])


def test_a_run_killed_before_its_first_checkpoint_writes_step_0_once(recipe, launch, tmp_path):
    path = recipe()
    process = launch(path, "plan.budget=204800", "checkpoint.every=100000")
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() or b'"evaluation"' not in metrics.read_bytes():
        assert process.poll() is None, process.communicate()[1]
    process.kill()
    process.wait()
    assert ("evaluation", 0) in rows(tmp_path / "run")
    train(load_config(path))
    assert sorted(rows(tmp_path / "run")) == EXPECTED


@pytest.mark.parametrize("lost", [("step-00000008",), ("step-00000004", "step-00000008")])
def test_every_row_is_there_once_whichever_checkpoints_are_lost(recipe, lost):
    config = load_config(recipe())
    train(config)
    for name in lost:
        (config.output / "checkpoints" / name / "state.json").unlink()
    train(config)
    assert sorted(rows(config.output)) == EXPECTED


@pytest.mark.parametrize(
    "damage",
    [b'{"kind": "tr', b"\xff\xfe", b"5", b"[]", b'{"kind": "train"}', b'{"step": 3}', b"\0" * 20, b"[" * 10**5],
)
def test_a_damaged_line_is_named_unless_it_is_the_last(tmp_path, damage):
    log = MetricsLog(tmp_path)
    log.path.write_bytes(TRAIN % 1 + damage + b"\n" + TRAIN % 2)
    with pytest.raises(ProxyByteError, match=re.escape(f"{log.path}:2 is damaged")):
        log.read()
    with pytest.raises(ProxyByteError, match="is damaged"):
        log.cut(1)
    log.path.write_bytes(TRAIN % 1 + damage)
    assert [line["step"] for line in log.read()] == [1]


def test_a_tail_of_zeros_as_a_power_cut_leaves_it_is_dropped(tmp_path):
    log = MetricsLog(tmp_path)
    log.path.write_bytes(TRAIN % 1 + TRAIN % 2 + b"\0" * 4096)
    log.cut(2)
    assert log.path.read_bytes() == TRAIN % 1 + TRAIN % 2


def test_a_run_that_begins_keeps_nothing_of_what_lay_there(tmp_path):
    log = MetricsLog(tmp_path)
    log.path.write_bytes(b"whatever this is")
    log.cut(None)
    assert log.path.read_bytes() == b""
