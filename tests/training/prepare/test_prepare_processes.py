"""``prepare`` split over the processes of a launcher: the same folder as one process writes."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from proxybyte.cli import main
from proxybyte.training.compressors.neural import NeuralCompressor, NeuralSettings
from proxybyte.training.compressors.neural.fit import FloatByteLM, quantise
from proxybyte.training.prepare import read_manifest

TWO = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
ACCELERATE = ("accelerate.commands.launch", "--cpu", "--num_processes")


@pytest.fixture
def m1(tmp_path) -> Path:
    """A neural compressor that has learnt nothing but is as slow and as exact as another; it cuts windows."""
    torch.manual_seed(0)
    counts = torch.bincount(torch.frombuffer(bytearray(b"def return import self class for in "), dtype=torch.uint8))
    lm = quantise(FloatByteLM(16, torch.nn.functional.pad(counts, (0, 256 - len(counts)))))
    settings = NeuralSettings(ending="cut", threshold=8, jump=8, least_bytes_per_symbol=0.0)
    NeuralCompressor(lm, settings).save(tmp_path / "m1")
    return tmp_path / "m1"


def launched(launcher: Sequence[str], *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *launcher, "proxybyte.cli", "prepare", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest, which holds times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "prepared.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_two_processes_write_the_bytes_of_one(m1, tmp_path, some_text, write_shard):
    corpus = tmp_path / "corpus"  # a small one: this compressor takes a second for 5 kB
    corpus.mkdir()
    write_shard(corpus / "train-00000.parquet", [some_text(number, 700) for number in range(8)], 1)
    write_shard(corpus / "validation-00000.parquet", [some_text(number, 500) for number in range(8, 12)], 2)
    assert (
        main(["prepare", str(corpus), "--compressor", str(m1), "--out", str(tmp_path / "one"), "--workers", "1"]) == 0
    )
    done = launched(TWO, corpus, "--compressor", m1, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    one, two = read_manifest(tmp_path / "one"), read_manifest(tmp_path / "two")
    assert (one.workers, two.workers) == (1, 0)
    assert one.fingerprint == two.fingerprint
    assert one.total.cut_windows == two.total.cut_windows > 0
    assert done.stdout.count("next: proxybyte train") == 1
    again = launched(TWO, corpus, "--compressor", m1, "--out", tmp_path / "two")
    assert again.returncode == 0 and "is up to date" in again.stderr


def test_accelerate_that_starts_one_process_for_two_is_noticed(corpus, tmp_path):
    done = launched([*ACCELERATE, "2", "-m"], corpus, "--compressor", "gzip", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert "1 process(es) run, but the launcher was asked for 2" in done.stderr
    assert not list(tmp_path.glob("out*"))


def test_accelerate_with_one_process_prepares(corpus, tmp_path):
    done = launched([*ACCELERATE, "1", "-m"], corpus, "--compressor", "gzip", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "out").total.documents == 71


def side_by_side(*commands: Sequence[object]) -> list[tuple[int, str]]:
    """Exit code and standard error of each command, run as the processes of one launch without a launcher."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(commands))},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]
    said = [process.communicate(timeout=240)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def test_where_one_process_fails_the_share_of_the_other_is_kept_and_the_next_run_goes_on(corpus, tmp_path):
    command = ["-m", "proxybyte.cli", "prepare", corpus, "--compressor", "gzip", "--out", tmp_path / "out"]
    shard = corpus / "train-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:200] + bytes(50) + whole[250:])
    ends = side_by_side(command, command)
    assert 2 in [code for code, _ in ends]
    assert any("train-00001.parquet, row group" in said for _, said in ends)
    assert not any("Traceback" in said for _, said in ends)
    assert not (tmp_path / "out").exists()
    shard.write_bytes(whole)
    assert main([*map(str, command[2:]), "--workers", "1"]) == 0
    assert main([*map(str, command[2:-1]), str(tmp_path / "one"), "--workers", "1"]) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
