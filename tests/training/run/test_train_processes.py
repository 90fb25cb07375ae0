"""Several processes compute what one computes (gloo on the CPU)."""

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.training.machine import asked_processes
from proxybyte.training.run.config_io import load_config
from proxybyte.training.run.distributed import check_size
from proxybyte.training.train import train

TWO = ("torch.distributed.run", "--nproc-per-node", "2", "-m")


@pytest.fixture
def alone(recipe, tmp_path, read_losses):
    config = load_config(recipe(), [f"output={tmp_path / 'alone'}"])
    train(config)
    return read_losses(config.output)


def test_two_processes_give_the_losses_of_one_to_the_last_bit(recipe, launch, tmp_path, read_losses, alone):
    process = launch(recipe(), launcher=TWO)
    assert process.wait(timeout=120) == 0, process.communicate()[1]
    assert read_losses(tmp_path / "run") == alone


def test_sharded_processes_give_the_losses_of_one_and_resume(recipe, run_ranks, tmp_path, read_losses, alone):
    run_ranks(2, recipe(), "compute.parallel=fsdp")
    whole = read_losses(tmp_path / "run")
    assert whole == [pytest.approx(line, rel=2e-5) for line in alone]
    # One process goes on from what two had sharded.
    (tmp_path / "run" / "checkpoints" / "step-00000008" / "state.json").unlink()
    assert train(load_config(recipe(), ["compute.parallel=fsdp"])).finished
    assert read_losses(tmp_path / "run") == [pytest.approx(line, rel=2e-5) for line in alone]
    assert read_losses(tmp_path / "run")[:4] == whole[:4]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_hold_still_what_one_holds_still(recipe, run_ranks, tmp_path, read_losses, parallel):
    settings = ["trainable.embeddings_only=0.5", f"compute.parallel={parallel}"]
    config = load_config(recipe(), [*settings, f"output={tmp_path / 'alone'}"])
    train(config)
    run_ranks(2, recipe(), *settings)
    expected = [pytest.approx(line, rel=2e-5) for line in read_losses(config.output)]
    assert read_losses(tmp_path / "run") == expected


def test_a_launcher_that_starts_fewer_processes_than_asked_is_noticed(recipe, launch, tmp_path):
    launcher = ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m")
    process = launch(recipe(), launcher=launcher)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "1 process(es) run, but the launcher was asked for 2" in said
    assert not (tmp_path / "run").exists()


def test_the_launchers_wish_is_read_from_environment_or_command_line():
    assert asked_processes({"WORLD_SIZE": "4"}, []) == 4
    assert asked_processes({}, ["python", "/bin/accelerate", "launch", "--num_processes", "3", "-m", "x"]) == 3
    assert asked_processes({}, ["python", "-m", "accelerate.commands.launch", "--num-processes=2", "x.py"]) == 2
    assert asked_processes({}, ["python", "/bin/accelerate", "launch", "x.py"]) is None
    assert asked_processes({}, ["bash", "--num_processes", "3"]) is None


def test_a_batch_that_does_not_divide_by_the_processes_is_refused(recipe):
    batch = load_config(recipe()).batch
    with pytest.raises(ProxyByteError, match=r"times the number of processes \(3\)"):
        check_size(3, None, batch)
    with pytest.raises(ProxyByteError, match=r"1 process\(es\) run, but compute\.processes asks for 2"):
        check_size(1, 2, batch)
