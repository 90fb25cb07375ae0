"""Runs of 1, 2 and 4 real processes over gloo: the same rows and losses, and checkpoints that any of them reads."""

import json
import logging
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from proxybyte import ProxyByteForCausalLM
from proxybyte.artefacts import find_model
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.training.run.checkpoint import CheckpointFolder
from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train

DDP, FSDP = "compute.parallel=ddp", "compute.parallel=fsdp"
BATCH = {"rows_per_step": 4, "rows_per_device": 1}
"""Four processes take a row each."""
FOURTH, LAST = "checkpoints/step-00000004", "checkpoints/step-00000008"
CLOSE = 2e-5


def training(run):
    """Its lines of training."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def shown(run):
    """Of each step what rows there were: it is counted."""
    keys = ("step", "phase", "targets", "symbols", "raw/bytes", "compressed/bytes", "raw/documents", "flops")
    return [[line.get(key) for key in keys] for line in training(run)]


def losses(run):
    return [value for line in training(run) for value in (line["loss"], line["grad_norm"])]


@pytest.fixture(scope="module")
def alone(module_recipe):
    """The whole run of one process."""
    config = load_config(module_recipe(batch=BATCH))
    train(config)
    return config.output


@pytest.fixture(scope="module")
def four(module_recipe, run_ranks):
    """The whole run of four processes that share the model."""
    path = module_recipe(batch=BATCH)
    run_ranks(4, path, FSDP)
    return path.parent / "run"


@pytest.fixture
def halfway(recipe):
    """Copies a whole run as it was after step 4; gives the recipe that goes on with it."""

    def make(run):
        path = recipe(batch=BATCH)
        copy = path.parent / "run"
        shutil.copytree(run, copy)
        shutil.rmtree(copy / "model")
        shutil.rmtree(copy / LAST)
        return path

    return make


@pytest.mark.parametrize(("processes", "parallel"), [(2, DDP), (4, DDP), (2, FSDP)])
def test_rows_and_losses_are_those_of_one_process(recipe, run_ranks, tmp_path, alone, processes, parallel):
    run_ranks(processes, recipe(batch=BATCH), parallel)
    assert shown(tmp_path / "run") == shown(alone)
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=CLOSE)
    assert (tmp_path / "run" / LAST / "model").is_dir() == (parallel == DDP)


def test_so_are_those_of_four_that_share_the_model(four, alone):
    assert shown(four) == shown(alone)
    assert losses(four) == pytest.approx(losses(alone), rel=CLOSE)


@pytest.mark.parametrize(("processes", "parallel"), [(1, DDP), (2, FSDP), (2, DDP)])
def test_what_four_saved_others_go_on_from(halfway, run_ranks, tmp_path, four, alone, processes, parallel):
    run_ranks(processes, halfway(four), parallel)
    assert shown(tmp_path / "run") == shown(alone)
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=CLOSE)
    assert losses(tmp_path / "run")[:8] == losses(four)[:8]


def test_what_one_saved_two_go_on_from_in_shards(halfway, run_ranks, tmp_path, alone):
    run_ranks(2, halfway(alone), FSDP)
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=CLOSE)
    assert losses(tmp_path / "run")[:8] == losses(alone)[:8]
    assert (tmp_path / "run" / FOURTH / "model").is_dir()
    assert (tmp_path / "run" / LAST / "weights").is_dir()


def by_hand(folder):
    """Whole tensors put together from the pieces that the headers of all files in ``folder`` name."""
    pieces = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            places = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            for name in file.keys():  # noqa: SIM118 (no mapping)
                pieces.setdefault(name, []).append((places[name]["saved_offsets"], file.get_tensor(name)))
    whole = {}
    for name, parts in pieces.items():
        parts = sorted((offset[0] if offset else 0, piece) for offset, piece in parts if piece.numel())
        whole[name] = torch.cat([piece for _, piece in parts]) if parts[0][1].ndim else parts[0][1]
        begins = [begin for begin, _ in parts]
        lengths = [len(piece) if piece.ndim else 1 for _, piece in parts]
        assert begins == [sum(lengths[:number]) for number in range(len(parts))]
    return whole


def test_each_process_writes_its_own_part_and_the_final_model_is_all_of_them(four, alone):
    folder = four / LAST / "weights"
    assert len(list(folder.glob("shard-*"))) == len(list((four / LAST / "optimizer").glob("shard-*"))) == 4
    sizes = sorted(path.stat().st_size for path in folder.glob("shard-*"))
    whole = (alone / LAST / "model" / "model.safetensors").stat().st_size
    assert sizes[-1] < whole / 2  # of four; headers are a part of so small a model
    final = load_file(four / "model" / "model.safetensors")
    expected = by_hand(folder)
    assert final.keys() == expected.keys() == load_file(alone / "model" / "model.safetensors").keys()
    assert all(torch.equal(final[name], expected[name]) for name in final)
    model = ProxyByteForCausalLM.from_pretrained(four / "model")
    assert all(torch.equal(value, expected[name]) for name, value in model.named_parameters())
    assert not list((four / "model").glob("shard-*"))
    assert {path.name for path in (four / "model").iterdir()} == {path.name for path in (alone / "model").iterdir()}
    for name in ("config.json", "generation_config.json", "modeling_proxybyte.py"):
        assert (four / "model" / name).read_bytes() == (alone / "model" / name).read_bytes()


def test_moments_in_shards_are_those_of_one_process(four, alone):
    expected = load_file(alone / FOURTH / "optimizer.safetensors")
    found = by_hand(four / FOURTH / "optimizer")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6)


def test_nothing_but_safetensors_and_json_is_in_a_checkpoint(four):
    names = {path.name for path in (four / LAST).rglob("*") if path.is_file()}
    odd = {name for name in names if not name.endswith((".safetensors", ".json", ".py"))}
    assert odd == {"SHA256SUMS"}


def test_an_unfinished_run_is_consolidated_by_command(halfway, four, tmp_path, capsys, caplog):
    run = halfway(four).parent / "run"
    with pytest.raises(ProxyByteError, match=r"holds weights in shards: .*proxybyte consolidate"):
        find_model(run)
    assert main(["consolidate", str(run), "--out", str(tmp_path / "whole")]) == 0
    assert "step 4 of" in capsys.readouterr().out
    expected = by_hand(run / FOURTH / "weights")
    model = ProxyByteForCausalLM.from_pretrained(tmp_path / "whole")
    assert all(torch.equal(value, expected[name]) for name, value in model.named_parameters())
    assert find_model(tmp_path / "whole").compressor == (tmp_path / "whole" / "compressor").resolve()


@pytest.mark.parametrize("file", ["weights/shard-00002-model-00001-of-00001.safetensors",
                                  "optimizer/shard-00004-model-00001-of-00001.safetensors"])  # fmt: skip
def test_a_flipped_bit_in_a_shard_is_found_and_the_file_named(four, tmp_path, caplog, capsys, file):
    run = tmp_path / "run"
    shutil.copytree(four, run)
    content = bytearray((run / LAST / file).read_bytes())
    content[-100] ^= 1
    (run / LAST / file).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert CheckpointFolder(run, keep=2).latest()[0] == run / FOURTH
    assert f"{file} is damaged" in caplog.text
    assert main(["consolidate", str(run / LAST), "--out", str(tmp_path / "whole")]) == 2
    assert f"{file} is damaged" in capsys.readouterr().err


def test_two_processes_agree_on_which_checkpoint_is_damaged(four, recipe, run_ranks, tmp_path):
    path = recipe(batch=BATCH)
    shutil.copytree(four, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "run" / LAST / "optimizer" / "shard-00003-model-00001-of-00001.safetensors").write_bytes(b"half")
    run_ranks(2, path, FSDP)
    assert losses(tmp_path / "run") == pytest.approx(losses(four), rel=CLOSE)


AT = {
    "before its part is written": {"at": "proxybyte.training.run.checkpoint:save_shards"},
    "while it is": {"at": "safetensors.torch:save"},
    "behind it": {"at": "proxybyte.training.run.checkpoint:_describe"},
}


@pytest.mark.parametrize(
    "moment", ["while it is", *(pytest.param(name, marks=pytest.mark.slow) for name in AT if name != "while it is")]
)
def test_a_process_killed_while_a_checkpoint_is_written_leaves_none_that_is_picked(
    recipe, launch_ranks, run_ranks, tmp_path, alone, moment
):
    path = recipe(batch=BATCH)
    first, second = launch_ranks(2, path, FSDP, of_rank=1, signal=9, **AT[moment])
    assert second.wait() == -9
    assert first.wait() != 0
    assert CheckpointFolder(tmp_path / "run", keep=2).latest() is None
    run_ranks(2, path, FSDP)
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=CLOSE)
    assert not list((tmp_path / "run" / "checkpoints").glob("*.tmp"))


def test_so_does_the_first_process_as_it_publishes_and_the_one_before_stands(
    halfway, launch_ranks, run_ranks, tmp_path, four, alone
):
    path = halfway(four)
    first, second = launch_ranks(2, path, FSDP, at="proxybyte.training.run.checkpoint:sealed_json", signal=9)
    assert first.wait() == -9
    assert second.wait() != 0
    assert CheckpointFolder(tmp_path / "run", keep=2).latest()[0] == tmp_path / "run" / FOURTH
    run_ranks(2, path, FSDP)
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=CLOSE)


def test_machines_without_shared_storage_are_told_so(recipe, launch_ranks, tmp_path):
    path = recipe(batch=BATCH, output="run")
    (tmp_path / "elsewhere").mkdir()
    first, second = launch_ranks(2, path, FSDP, of_rank=1, cwd=str(tmp_path / "elsewhere"))
    assert first.wait() == 2
    assert "process 1 wrote weights/shard-00002" in first.communicate()[1]
    assert "storage that all machines share" in first.communicate()[1]
    second.wait()
