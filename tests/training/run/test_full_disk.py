"""A disk that takes no more: one sentence with the step, and the last checkpoint stands. The kernel refuses here."""

import resource
from types import SimpleNamespace

import pytest

from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train


@pytest.fixture
def limited(server):
    """Trains in a process that writes no file of more than so many bytes."""

    def run(size, *words):
        process = server.fork(words, module="proxybyte.training.train", file_bytes=size)
        return SimpleNamespace(stderr=process.communicate()[1], returncode=process.returncode)

    return run


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit of file sizes here")
def test_a_checkpoint_that_does_not_fit_names_the_step_and_the_last_one_stands(recipe, tmp_path, read_losses, limited):
    path = recipe()
    stopped = load_config(path, ["checkpoint.every=4"])
    train(stopped)
    whole = read_losses(stopped.output)
    last = stopped.output / "checkpoints" / "step-00000008"
    (last / "state.json").unlink()  # the run goes on from step 4, and cannot write step 8 again
    done = limited(20_000, "--config", str(path))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert "cannot be written at step 8" in said
    assert "the checkpoint of step 4 stands" in said
    assert "MB are free" in said
    assert not list((stopped.output / "checkpoints").glob("*.tmp"))
    train(stopped)
    assert read_losses(stopped.output) == whole


def test_a_first_checkpoint_that_does_not_fit_says_that_there_is_none(recipe, limited):
    done = limited(20_000, "--config", str(recipe()))
    assert done.returncode == 2
    assert "at step 4" in done.stderr
    assert "there is no checkpoint yet" in done.stderr
    assert "Traceback" not in done.stderr


def test_metrics_that_cannot_be_written_are_the_same_sentence(recipe, tmp_path, limited):
    path = recipe()
    (tmp_path / "run").mkdir()
    done = limited(2_500, "--config", str(path), "checkpoint.every=1000", "evaluation.every=0", "log.every=1")
    assert done.returncode == 2, done.stderr
    assert "cannot be written at step" in done.stderr
    assert "Traceback" not in done.stderr
