"""Fixtures shared by all rooms' tests."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

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


class Forked:
    """A process that :class:`CommandServer` started, with the methods of ``subprocess.Popen``."""

    def __init__(self, pid: int, folder: Path):
        self.pid, self._folder = pid, folder

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that killed it; ``None`` while it runs."""
        code = self._folder / "code"
        return int(code.read_text()) if code.exists() else None

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """The same, once it has ended."""
        deadline = time.monotonic() + timeout
        while (code := self.returncode) is None:
            assert time.monotonic() < deadline, f"process {self.pid} does not end: {self.communicated()}"
            time.sleep(0.005)
        return code

    def communicated(self) -> tuple[str, str]:
        """What it has said so far, on stdout and on stderr."""
        errors = self._folder / "errors"
        return (self._folder / "log").read_text(), errors.read_text() if errors.exists() else ""

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """All that it said."""
        self.wait(timeout)
        return self.communicated()

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """By SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """By SIGTERM."""
        self.send_signal(signal.SIGTERM)


class CommandServer:
    """``command_server.py``: processes of their own that need not import anything again."""

    def __init__(self, folder: Path):
        self._folders = (folder / f"process{number}" for number in itertools.count())
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, str(Path(__file__).with_name("command_server.py"))]
        self._process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fork(self, words: Sequence[object], errors: bool = True, **how: Any) -> Forked:
        """Start ``proxybyte`` with ``words``; ``how`` as the server's text says, stderr apart with ``errors``."""
        folder = next(self._folders)
        folder.mkdir()
        order = {"words": [*map(str, words)], "log": str(folder / "log"), "code": str(folder / "code"), **how}
        if errors:
            order["errors"] = str(folder / "errors")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()), folder)

    def start(self, words: list[str], **how: Any) -> int:
        """Start it, both streams in one; the number of its process."""
        self._last = self.fork(words, errors=False, **how)
        return self._last.pid

    def ended(self) -> tuple[int, str]:
        """Wait for the last that was started: its exit code, minus the signal that killed it, and what it said."""
        return self._last.wait(), self._last.communicated()[0]

    def run(self, words: list[str], **how: Any) -> tuple[int, str]:
        """Both."""
        self.start(words, **how)
        return self.ended()

    def close(self) -> None:
        """End the server."""
        self._process.stdin.close()
        self._process.wait(timeout=120)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[CommandServer]:
    """One for all tests of the session."""
    made = CommandServer(tmp_path_factory.mktemp("server"))
    yield made
    made.close()
