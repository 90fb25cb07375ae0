"""``make gpu-check`` at toy size on a CPU: every step runs, and one that fails loses no other."""

import json

import gpu_check
import pytest
import torch
from gpu_check import GROUPS, Measured, Place, check_group, main

CPU = Place(torch.device("cpu"), toy=True)
SPEEDS = {step.__name__ for group in GROUPS if group.startswith("speed") for step in GROUPS[group]}


@pytest.mark.parametrize("group", GROUPS)
def test_every_step_runs_and_is_right_at_toy_size(group, tmp_path):
    out = tmp_path / "check.json"
    assert check_group(group, CPU, out)
    told = json.loads(out.read_text())
    assert list(told) == [step.__name__ for step in GROUPS[group]]
    for name, entry in told.items():
        assert (entry["right"], entry["device"]) == (True, "cpu")
        assert entry["seconds"] >= 0
        if name in SPEEDS:
            assert entry["flops_per_s"] == entry["value"] > 1e6
            assert entry["peak_flops_per_s"] is None and entry["peak_memory_gb"] is None


def test_a_step_that_fails_or_is_wrong_loses_no_other(monkeypatch, tmp_path):
    def broken(place):
        raise OSError("no such device")

    def wrong(place):
        return Measured(0.5, "share", False)

    def right(place):
        return Measured(0.25, "share", True)

    monkeypatch.setitem(gpu_check.GROUPS, "model", (broken, wrong, right))
    out = tmp_path / "check.json"
    assert not check_group("model", CPU, out)
    told = json.loads(out.read_text())
    assert told["broken"]["said"] == "OSError: no such device"
    assert [told[name]["right"] for name in ("broken", "wrong", "right")] == [False, False, True]
    assert told["right"]["value"] == 0.25


def test_a_group_that_dies_leaves_its_steps_named(monkeypatch, tmp_path):
    out = tmp_path / "check.json"
    monkeypatch.setattr(gpu_check, "GROUP_SECONDS", 0.01)
    assert main(["packed", "--toy", "--cpu", "--out", str(out)]) == 1
    told = json.loads(out.read_text())
    assert set(told) == {"packed_sdpa", "packed_flex", "packed_flex_gradient"}
    assert all(entry["said"] == "did not come to its end" for entry in told.values())


def test_the_command_writes_what_it_measured(tmp_path):
    out = tmp_path / "check.json"
    assert main(["eva", "--toy", "--cpu", "--out", str(out)]) == 0
    assert all(entry["right"] for entry in json.loads(out.read_text()).values())


def test_other_results_are_not_taken_for_equal():
    assert not gpu_check._near(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.01])).right
    text = gpu_check._written(CPU.device)
    other = text.clone()
    other[40] = text[40] ^ 1
    assert not gpu_check._same_text(other, text).right
