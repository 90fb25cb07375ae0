"""A small prepared folder and recipes for runs of seconds."""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import yaml

from proxybyte.training.compressors import Compressor
from proxybyte.training.compressors.bpe_train import train_bpe

BACKBONE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "attention_dropout": 0.1,
    "tie_word_embeddings": True,
}
NUM_CODES = 280


def save_split(
    folder: Path, documents: Sequence[bytes], compressor: Compressor, claimed_bytes: int | None = None
) -> None:
    """A prepared split as docs/architecture.md describes it.

    ``claimed_bytes`` is written as every document's length in place of the true one.
    """
    codes = [np.asarray(code) for code in compressor.encode_batch(documents)]
    ends = [compressor.borders(code) for code in codes]
    borders = [
        [int(end[len(code) * j // 16 - 1]) if len(code) >= 16 else 0 for j in range(1, 16)]
        for code, end in zip(codes, ends, strict=True)
    ]
    table = pa.table(
        {
            "text": pa.array(list(documents), pa.large_binary()),
            "symbols": pa.array([c.tolist() for c in codes], pa.large_list(pa.uint16())),
            "n_bytes": pa.array([claimed_bytes or len(t) for t in documents], pa.int64()),
            "n_symbols": pa.array([len(c) for c in codes], pa.int64()),
            "borders": pa.array(borders, pa.list_(pa.uint32(), 15)),
            "source": pa.array([f"document-{i}" for i in range(len(documents))]),
        }
    )
    datasets.Dataset(table).save_to_disk(str(folder), num_shards=3)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A prepared folder: 60 documents of words for training, 6 for validation, a compressor."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = random.Random(0)
    words = ["def", "return", "import", "self", "None", "for", "in", "range", "(x)", ":\n", "= 0", "λ"]
    texts = [" ".join(rng.choices(words, k=rng.randint(10, 120))).encode() for _ in range(66)]
    compressor = train_bpe(texts[:60], NUM_CODES)
    compressor.save(folder / "compressor")
    save_split(folder / "train", texts[:60], compressor)
    save_split(folder / "validation", texts[60:], compressor)
    return folder


@pytest.fixture(scope="session")
def write_split() -> Callable[..., None]:
    return save_split


def write_recipe(folder: Path, prepared: Path, **changes: object) -> Path:
    """A recipe of a tiny run in ``folder``; keyword arguments replace whole sections or keys."""
    values = {
        "output": str(folder / "run"),
        "data": str(prepared),
        "precision": "float32",
        "model": {"backbone_config": BACKBONE},
        "plan": {"row_length": 64, "budget": 2048, "budget_unit": "symbols"},
        "batch": {"rows_per_step": 4, "rows_per_device": 2},
        "learning_rate": {"warmup": 0.25},
        "log": {"every": 3, "trackers": [], "plot": False},
        "checkpoint": {"every": 4},
        "evaluation": {"every": 4, "documents": 4, "max_bytes": 100},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


@pytest.fixture
def recipe(prepared, tmp_path) -> Callable[..., Path]:
    """Writes a recipe of a tiny run; keyword arguments replace whole sections or keys."""

    def make(**changes: object) -> Path:
        return write_recipe(tmp_path, prepared, **changes)

    return make


@pytest.fixture(scope="module")
def module_recipe(prepared, tmp_path_factory) -> Callable[..., Path]:
    """The same for what all tests of a file read, in a folder of its own each time."""

    def make(**changes: object) -> Path:
        return write_recipe(tmp_path_factory.mktemp("shared"), prepared, **changes)

    return make


def losses(run: Path) -> list[tuple[int, float, float]]:
    """Step, loss and gradient norm of every training line of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines if line["kind"] == "train"]


@pytest.fixture
def read_losses() -> Callable[[Path], list[tuple[int, float, float]]]:
    return losses


@pytest.fixture
def launch(request) -> Callable[..., Any]:
    """Starts ``python -m [LAUNCHER] proxybyte.training.train --config RECIPE [overrides]`` on one thread.

    Without a launcher in a fork of a process that has imported it.
    """
    started: list[Any] = []

    def start(path: Path, *overrides: str, launcher: Sequence[str] = ()) -> Any:
        if not launcher:
            words = ["--config", str(path), *overrides]
            how = {"cwd": str(path.parent), "environment": {"ACCELERATE_USE_CPU": "true"}}
            server = request.getfixturevalue("server")
            started.append(server.fork(words, module="proxybyte.training.train", **how))
            return started[-1]
        command = [sys.executable, "-m", *launcher, "proxybyte.training.train", "--config", str(path), *overrides]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=path.parent
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def launch_ranks(server) -> Callable[..., list[Any]]:
    """Starts a run of several processes, each a fork of one that has imported it; a launcher is started elsewhere.

    ``how`` is the server's, for the rank ``of_rank`` alone.
    """
    started: list[Any] = []

    def start(number: int, path: Path, *overrides: str, of_rank: int = 0, **how: Any) -> list[Any]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        ranks = []
        for rank in range(number):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
            environment = {name: str(value) for name, value in {**numbers, **meeting}.items()}
            words = ["--config", str(path), *overrides]
            own = {"cwd": str(path.parent), "environment": environment, **(how if rank == of_rank else {})}
            ranks.append(server.fork(words, module="proxybyte.training.train", **own))
        started.extend(ranks)
        return ranks

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def run_ranks(launch_ranks) -> Callable[..., None]:
    """The same to its end, which is a good one."""

    def run(number: int, path: Path, *overrides: str) -> None:
        for process in launch_ranks(number, path, *overrides):
            assert process.wait(timeout=120) == 0, process.communicate()[1]

    return run
