"""Commands killed at random moments, given again, and compared with the same command left alone.

A trial gives a command, kills it (its whole process group, or one of several processes) at a random moment, looks at
what it left, gives it again, perhaps kills it again, lets it end, and compares. A moment is a point in time, or a step
of its work on files (:mod:`crash_points`), or the byte at which a file may grow no further. All is drawn from the
trial's seed, which every failure names.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
from command_client import CommandServer, Forked
from crash_points import read_count
from soak_inputs import Inputs

COMMANDS = (
    "corpus",
    "compressor fit bpe",
    "compressor fit neural",
    "prepare",
    "train",
    "experiment run",
    "byteify",
    "export",
    "export full",
    "adapter merge",
)
"""In one process each."""
LAUNCHED = ("train", "prepare")
"""On two processes, under torchrun's agent."""
STEPS, SAVED_EVERY = 24, 4
_TIMES = ("seconds", "_per_s")
"""Endings of the keys in JSON that tell how long something took."""
_PATIENCE = 300.0
"""Seconds after which what is left of a killed command counts as left for ever."""
_LOOK = 0.002


class Wrong(AssertionError):
    """A promise that was not kept."""


class Moment(StrEnum):
    """What names the moment of a kill."""

    TIME = "time"
    FILE_STEP = "file step"
    FILE_SIZE = "file size"


class Victim(StrEnum):
    """Who is killed."""

    GROUP = "group"
    LAUNCHER = "launcher"
    RANK_0 = "rank 0"
    RANK_1 = "rank 1"


@dataclass(frozen=True)
class Subject:
    """A command as it is tried.

    Attributes:
        command: its words.
        ranks: processes under a launcher; 1 for the command alone.
    """

    command: str
    ranks: int = 1

    def __str__(self) -> str:
        return self.command if self.ranks == 1 else f"{self.command} on {self.ranks}"


SUBJECTS = (*map(Subject, COMMANDS), *(Subject(command, 2) for command in LAUNCHED))


@dataclass(frozen=True)
class Undisturbed:
    """A command left alone.

    Attributes:
        seconds: how long it took.
        file_steps: what it did to files.
        largest: bytes of its largest file.
        content: a digest of each file, by path.
        rows: what each step was trained on, by step and rank; empty for other commands.
    """

    seconds: float
    file_steps: int
    largest: int
    content: dict[str, str]
    rows: dict[tuple[int, int], list[str]]


@dataclass
class Counts:
    """What was done, for the file that is written after each trial."""

    trials: int = 0
    kills: int = 0
    ended_before: int = 0
    by: dict[str, dict[str, int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def killed(self, subject: Subject, moment: Moment, victim: Victim) -> None:
        """Count one."""
        self.kills += 1
        for kind, name in (("command", subject), ("moment", moment), ("victim", victim)):
            row = self.by.setdefault(kind, {})
            row[str(name)] = row.get(str(name), 0) + 1


class Trials:
    """Kills, in a folder of their own.

    Attributes:
        counts: of all trials so far.
    """

    def __init__(self, inputs: Inputs, server: CommandServer, home: Path):
        self._inputs, self._server, self._home = inputs, server, home
        self._place, self._count, self._rows = home / "trial", home / "count", home / "rows"
        self._undisturbed: dict[Subject, Undisturbed] = {}
        self.counts = Counts()
        home.mkdir(parents=True, exist_ok=True)

    def run(self, subject: Subject, seed: int) -> None:
        """One trial.

        Raises:
            Wrong: if a promise was not kept; the message has the subject and the seed.
        """
        rng = random.Random(f"{subject} {seed}")
        reference = self.undisturbed(subject)
        self._clear()
        self.counts.trials += 1
        lived: list[dict[tuple[int, int], list[str]]] = []
        try:
            for _ in range(rng.choice((1, 1, 2, 3))):
                process, killed = self._life(subject, reference, rng)
                lived.append(self._checked(subject, process))
                if not killed:
                    self.counts.ended_before += 1
                    break
            process = self._start(subject)
            _expect(process.wait(_PATIENCE) == 0, f"it does not end well: {process.said()}")
            self._picked_the_newest(subject, process)
            self._compare(reference, lived)
        except (Wrong, AssertionError) as error:
            sentence = f"{subject}, seed {seed}: {error}"
            self.counts.wrong.append(sentence)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            raise Wrong(sentence) from error

    def undisturbed(self, subject: Subject) -> Undisturbed:
        """The command left alone, once."""
        if subject not in self._undisturbed:
            self._clear()
            began = time.monotonic()
            process = self._start(subject)
            _expect(process.wait(_PATIENCE) == 0, f"{subject} fails by itself: {process.said()}")
            seconds, steps = time.monotonic() - began, read_count(self._count)
            files = [path for path in self._place.rglob("*") if path.is_file()]
            largest = max(path.stat().st_size for path in files)
            self._undisturbed[subject] = Undisturbed(seconds, steps, largest, self._content(), self._trained())
        return self._undisturbed[subject]

    def _clear(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir()
        self._rows.unlink(missing_ok=True)

    def _start(self, subject: Subject, die_at: int | None = None, file_bytes: int | None = None) -> Forked:
        out = self._place / "out"
        words = self._inputs.words(subject.command, out)
        self._picks = newest_whole(out / "checkpoints")
        watch = {"below": str(self._place), "count": str(self._count), "die_at": die_at}
        watch["rows"] = str(self._rows) if subject.command == "train" else None
        how: dict[str, Any] = {"group": True, "watch": watch, "environment": {"ACCELERATE_USE_CPU": "true"}}
        if file_bytes is not None:
            how |= {"file_bytes": file_bytes, "ends": True}
        if subject.command == "train":
            words = [*words, f"plan.budget={STEPS * 4 * 64}", "log.every=1"]
            words += ["batch.rows_per_device=1"] if subject.ranks > 1 else []
        if subject.command == "corpus":
            words += ["--shard-mb", "0.004"]
        if subject.ranks > 1:
            how["ranks"] = subject.ranks
            if subject.command == "train":
                words, how["module"] = words[1:], "proxybyte.training.train"
            else:
                place = words.index("--workers")
                words = words[:place] + words[place + 2 :]
        self._process = self._server.fork(words, **how)
        return self._process

    def _life(self, subject: Subject, reference: Undisturbed, rng: random.Random) -> tuple[Forked, bool]:
        """Start the command and kill it; the process, and whether it was still alive then."""
        victim = rng.choice((Victim.GROUP, *Victim)) if subject.ranks > 1 else Victim.GROUP
        moment = Moment.TIME if victim is not Victim.GROUP else rng.choice((Moment.TIME, Moment.FILE_STEP, *Moment))
        if moment is Moment.FILE_STEP:
            process = self._start(subject, die_at=rng.randint(1, reference.file_steps))
        elif moment is Moment.FILE_SIZE:
            process = self._start(subject, file_bytes=rng.randint(1, reference.largest))
        else:
            process = self._start(subject)
            _kill_later(process, victim, rng.uniform(0, 1.05 * reference.seconds))
        code = process.wait(_PATIENCE)
        killed = code != 0
        if killed:
            self.counts.killed(subject, moment, victim)
        _expect(
            not _left_of(process.pid), f"processes of it are left after {victim} was killed: {_left_of(process.pid)}"
        )
        return process, killed

    def _checked(self, subject: Subject, process: Forked) -> dict[tuple[int, int], list[str]]:
        """What a life trained on that is saved; its checkpoints are whole, and no more than the last steps are lost."""
        if subject.command != "train":
            return {}
        self._picked_the_newest(subject, process)
        trained, folder = self._trained(), self._place / "out" / "checkpoints"
        self._rows.unlink(missing_ok=True)
        whole = newest_whole(folder)
        saved = _step_of(whole)
        begun = max((step for step, _ in trained), default=0)  # as many steps are finished, and this one is not
        due = max(begun // SAVED_EVERY * SAVED_EVERY, _step_of(self._picks))
        _expect(saved >= due, f"step {begun} had begun, and only {saved} is saved")
        for path in folder.glob("step-*[0-9]"):
            _expect(is_whole(path), f"{path.name} has its place and is not whole")
        return {key: rows for key, rows in trained.items() if key[0] < saved}

    def _picked_the_newest(self, subject: Subject, process: Forked) -> None:
        """Of the checkpoints that were there, a training run went on from the newest whole one."""
        said = "".join(process.communicated())
        picked = re.search(r"going on from (\S+)", said)
        if subject.command != "train" or (picked is None and "step 0:" not in said):  # it had not come so far
            return
        _expect(
            (picked and picked[1]) == (self._picks and str(self._picks)),
            f"went on from {picked and picked[1]}, not {self._picks}",
        )

    def _trained(self) -> dict[tuple[int, int], list[str]]:
        """Rows by step and rank, in the life that wrote the file."""
        lines = self._rows.read_text().splitlines() if self._rows.exists() else []
        trained: dict[tuple[int, int], list[str]] = {}
        for line in lines:
            with suppress(ValueError):  # the last, cut off
                values = json.loads(line)
                key = values["step"], values["rank"]
                _expect(key not in trained, f"step {key[0]} was trained twice in one life")
                trained[key] = values["rows"]
        return trained

    def _compare(self, reference: Undisturbed, lived: list[dict[tuple[int, int], list[str]]]) -> None:
        """The output is that of the undisturbed command, and each row was trained on once."""
        content = self._content()
        for more, less, word in ((content, reference.content, "too many"), (reference.content, content, "missing")):
            odd = sorted(more.keys() - less.keys())
            _expect(not odd, f"files {word}: {odd[:5]}")
        changed = [name for name, digest in content.items() if digest != reference.content[name]]
        _expect(not changed, f"other content: {changed[:5]}")
        together: dict[tuple[int, int], list[str]] = {}
        for trained in [*lived, self._trained()]:
            again = trained.keys() & together.keys()
            _expect(not again, f"steps that count twice: {sorted(again)[:5]}")
            together |= trained
        _expect(together == reference.rows, "rows were trained on twice, or skipped")

    def _content(self) -> dict[str, str]:
        files = {str(path.relative_to(self._place)): path for path in self._place.rglob("*") if path.is_file()}
        return {name: hashlib.sha256(_without_times(path)).hexdigest() for name, path in sorted(files.items())}


def newest_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint whose files have the sums that it says."""
    return next((path for path in sorted(checkpoints.glob("step-*[0-9]"), reverse=True) if is_whole(path)), None)


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.removeprefix("step-")) if checkpoint else 0


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of a checkpoint has the SHA-256 that its ``state.json`` says, worked out here."""
    try:
        files = json.loads((checkpoint / "state.json").read_bytes())["files"]
        return all(
            hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() == said["sha256"]
            for name, said in files.items()
        )
    except (OSError, ValueError, KeyError):
        return False


def _kill_later(process: Forked, victim: Victim, seconds: float) -> None:
    """Kill one or all of a command's processes after so long; one that is not there yet is waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.returncode is None:
        time.sleep(_LOOK)
    noted = process.folder / f"rank{victim.removeprefix('rank ')}"
    while victim in (Victim.RANK_0, Victim.RANK_1) and not noted.exists() and process.returncode is None:
        time.sleep(_LOOK)
    with suppress(ProcessLookupError):
        if victim is Victim.GROUP:
            os.killpg(process.pid, signal.SIGKILL)
        elif victim is Victim.LAUNCHER:
            os.kill(process.pid, signal.SIGKILL)
        elif noted.exists():
            os.kill(int(noted.read_text()), signal.SIGKILL)


def _left_of(group: int) -> list[str]:
    """Processes of a group after some patience."""
    until = time.monotonic() + _PATIENCE
    while (left := list(_members(group))) and time.monotonic() < until:
        time.sleep(_LOOK * 10)
    return left


def _members(group: int) -> Iterator[str]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                yield f"{process.pid} {' '.join(process.cmdline())[:80]}"


def _without_times(path: Path) -> bytes:
    """The content, and of JSON without what tells how long something took."""
    content = path.read_bytes()
    if path.suffix not in (".json", ".jsonl") or not content:
        return content
    try:
        values = [json.loads(line) for line in (content.splitlines() if path.suffix == ".jsonl" else [content])]
    except ValueError:
        return content
    if path.name == "prepared.json":  # its own digest is of its times too, and the workers are those of the last run
        for key in ("sha256", "workers"):
            values[0].pop(key, None)
    return json.dumps(_pruned(values)).encode()


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(each) for key, each in value.items() if not key.endswith(_TIMES)}
    return [_pruned(each) for each in value] if isinstance(value, list) else value


def _expect(kept: bool, otherwise: str) -> None:
    if not kept:
        raise Wrong(otherwise)
