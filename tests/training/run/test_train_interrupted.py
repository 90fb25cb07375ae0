"""Runs that are killed or asked to stop go on as if nothing had happened, to the last bit."""

import os
import signal
import threading
import time

import pytest

from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train

LONG = ("plan.budget=10240", "precision=auto", "checkpoint.every=4", "checkpoint.keep=100", "evaluation.every=0")
STEPS = 40


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def uninterrupted(recipe, tmp_path, read_losses):
    config = load_config(recipe(), [*LONG, f"output={tmp_path / 'whole'}"])
    train(config)
    return read_losses(config.output)


def test_a_killed_run_resumes_to_bit_identical_losses(recipe, launch, tmp_path, read_losses, uninterrupted):
    path = recipe()
    process = launch(path, *LONG)
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000008", process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 8 <= len(read_losses(tmp_path / "run")) < STEPS
    assert train(load_config(path, LONG)).finished
    assert read_losses(tmp_path / "run") == uninterrupted
    assert [step for step, _, _ in uninterrupted] == list(range(1, STEPS + 1))


def test_sigterm_saves_exits_with_0_and_the_run_goes_on(recipe, launch, tmp_path, read_losses, uninterrupted):
    path = recipe()
    process = launch(path, *LONG)
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000004", process)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    saved = len(read_losses(tmp_path / "run"))
    assert 4 < saved < STEPS
    assert f"stopped after step {saved}" in said
    assert (tmp_path / "run" / "checkpoints" / f"step-{saved:08d}").is_dir()
    assert not (tmp_path / "run" / "model").exists()
    assert train(load_config(path, LONG)).finished
    assert read_losses(tmp_path / "run") == uninterrupted


def test_ctrl_c_exits_with_130_so_that_what_follows_does_not_run(recipe, launch, tmp_path):
    process = launch(recipe(), *LONG)
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000004", process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "which is saved: the same command goes on from there" in said


def test_ctrl_c_stops_after_the_step_and_the_run_goes_on(recipe, tmp_path, read_losses, uninterrupted):
    path = recipe()
    before = signal.getsignal(signal.SIGINT)

    def interrupt():
        while not (tmp_path / "run" / "checkpoints" / "step-00000004").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    impatient = threading.Thread(target=interrupt)
    impatient.start()
    summary = train(load_config(path, LONG))
    impatient.join()
    assert not summary.finished
    assert 4 <= summary.step == len(read_losses(tmp_path / "run")) < STEPS
    assert signal.getsignal(signal.SIGINT) is before
    assert train(load_config(path, LONG)).finished
    assert read_losses(tmp_path / "run") == uninterrupted
