import json
import logging

import pytest
import torch

from proxybyte.errors import ProxyByteError
from proxybyte.training.run.checkpoint import (
    OPTIMIZER_FILE,
    CheckpointFolder,
    RunState,
    host_copies,
    load_optimizer,
    optimizer_tensors,
)


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path, keep=3)


def state(step):
    return RunState(step, {"symbols": 0.1 + 0.2}, {"seed": 1}, "data")


def save(folder, step):
    def write(where):
        where.mkdir()
        (where / "config.json").write_text(json.dumps({"step": step}))

    return folder.save(state(step), {"a/exp_avg": torch.full((3,), float(step))}, write)


def test_the_latest_is_found_by_listing_and_reads_back_equal(folder):
    assert folder.latest() is None
    for step in (5, 100, 20):
        path = save(folder, step)
        assert path.name == f"step-{step:08d}"
    assert folder.latest() == (folder.folder / "step-00000100", state(100))


def test_only_the_last_are_kept(folder):
    for step in range(1, 6):
        save(folder, step)
    assert sorted(path.name for path in folder.folder.iterdir()) == [f"step-{step:08d}" for step in (3, 4, 5)]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((file, damage) for file in (OPTIMIZER_FILE, "model/config.json") for damage in ("missing", "altered")),
        *((file, "truncated") for file in (OPTIMIZER_FILE, "model/config.json", "state.json")),
        ("state.json", "missing"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_message(folder, caplog, file, damage):
    save(folder, 1)
    path = save(folder, 2) / file
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0x15
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = folder.latest()
    assert found == (folder.folder / "step-00000001", state(1))
    assert file in caplog.text


def test_a_checkpoint_that_was_being_written_is_not_one(folder):
    save(folder, 1)
    save(folder, 2).rename(folder.folder / "step-00000002.tmp")
    assert folder.latest()[0].name == "step-00000001"
    save(folder, 2)
    assert folder.latest()[0].name == "step-00000002"
    assert not list(folder.folder.glob("*.tmp"))


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(folder):
    (save(folder, 2) / OPTIMIZER_FILE).unlink()
    save(folder, 2)
    assert folder.latest() == (folder.folder / "step-00000002", state(2))


def make_model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    return model, torch.optim.AdamW(model.parameters(), fused=True)


def take_step(model, optimizer):
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_an_optimizer_goes_on_to_the_bit_from_what_was_saved(folder):
    model, optimizer = make_model()
    take_step(model, optimizer)
    tensors = host_copies(optimizer_tensors(model, optimizer))
    path = folder.save(state(1), tensors, lambda where: where.mkdir())
    again, fresh = make_model()
    again.load_state_dict(model.state_dict())
    load_optimizer(again, fresh, path / OPTIMIZER_FILE)
    take_step(model, optimizer)
    take_step(again, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_optimizer_state_of_another_model_is_refused(folder):
    model, optimizer = make_model()
    take_step(model, optimizer)
    path = folder.save(state(1), optimizer_tensors(model, optimizer), lambda where: where.mkdir())
    other = torch.nn.Linear(4, 4)
    with pytest.raises(ProxyByteError, match="is of another model"):
        load_optimizer(other, torch.optim.AdamW(other.parameters()), path / OPTIMIZER_FILE)
