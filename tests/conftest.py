"""Fixtures shared by all rooms' tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from command_client import CommandServer

PREPARED_SCHEMA = pa.schema(
    [
        ("text", pa.large_binary()),
        ("symbols", pa.large_list(pa.uint16())),
        ("n_bytes", pa.int64()),
        ("n_symbols", pa.int64()),
        ("borders", pa.list_(pa.uint32(), 15)),
        ("source", pa.string()),
    ]
)


COME_FIRST = (
    "test_quickstart",
    "test_packaging",
    "test_train_processes",
    "test_train_heads",
    "test_prepare_processes",
    "test_processes",
    "test_drafting_real_prompts",
    "test_stranger",
    "test_experiment_run",
    "test_experiment_shared",
    "test_architecture",
)
"""Files that take longest, most of them by the processes that they start: what is left for the end is short then, and
shared out evenly. (By itself xdist puts files of many tests first, which are not these.)"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they come."""
    rank = {name: number for number, name in enumerate(COME_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the run cost, its processes among it: seconds of the wall tell that of a quiet machine only."""
    spent = os.times()
    own, children = spent.user + spent.system, spent.children_user + spent.children_system
    terminalreporter.write_line(f"{own + children:.0f} s of processor time, {children:.0f} s of them in processes")


def two_byte_codes(text: bytes) -> np.ndarray:
    """The simplest compressor with borders: two bytes a symbol, an odd last byte alone."""
    padded = np.frombuffer(text + b"\0" * (len(text) % 2), np.uint8).reshape(-1, 2).astype(np.uint16)
    return padded[:, 0] * 200 + padded[:, 1] % 200


def write_prepared(folder: Path, documents: Sequence[bytes], raw_only: Sequence[int] = ()) -> Path:
    """A prepared split as docs/architecture.md describes it, coded two bytes a symbol."""
    codes = [np.empty(0, np.uint16) if i in raw_only else two_byte_codes(text) for i, text in enumerate(documents)]
    sixteenths = np.arange(1, 16)
    borders = [
        np.minimum(len(code) * sixteenths // 16 * 2, len(text)) for code, text in zip(codes, documents, strict=True)
    ]
    table = pa.table(
        {
            "text": list(documents),
            "symbols": [code.tolist() for code in codes],
            "n_bytes": [len(text) for text in documents],
            "n_symbols": [-1 if i in raw_only else len(code) for i, code in enumerate(codes)],
            "borders": [border.tolist() for border in borders],
            "source": [f"document-{i}" for i in range(len(documents))],
        },
        schema=PREPARED_SCHEMA,
    )
    datasets.Dataset(table).save_to_disk(str(folder), num_shards=min(3, len(documents)))
    return folder


@pytest.fixture
def prepared_split(tmp_path) -> Callable:
    """Writes documents as a prepared split and opens it."""
    from proxybyte.training.stream.prepared import PreparedSplit

    def make(documents: Sequence[bytes], raw_only: Sequence[int] = ()) -> PreparedSplit:
        return PreparedSplit(write_prepared(tmp_path / "split", documents, raw_only))

    return make


@pytest.fixture(scope="session")
def trl(tmp_path_factory):
    """The package TRL, in a folder that goes away with the tests."""
    folder = tmp_path_factory.mktemp("trl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "trl==1.16.0"]
    if subprocess.run(install, check=False, capture_output=True).returncode:
        pytest.skip("no package index at hand")
    sys.path.insert(0, str(folder))
    yield pytest.importorskip("trl")
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[CommandServer]:
    """One for all tests of the session."""
    made = CommandServer(tmp_path_factory.mktemp("server"))
    yield made
    made.close()
