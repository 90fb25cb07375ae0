"""Verdicts on samples from the sandbox, and scores from verdicts."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.pass_at_k import Estimate, estimate, pass_at_k
from proxybyte.eval.code.problems import Problem
from proxybyte.eval.code.samples import JsonlLog, Sample
from proxybyte.eval.sandbox import Limits, Outcome, Status, Trial, Wall, run_programs

_WAY_OF_TESTING = "tests apart"
"""Part of every key: verdicts that programs could give themselves, from before, do not count."""


class VerdictFile(JsonlLog):
    """Outcomes by program, in a JSONL file that is added to as they come.

    Args:
        path: the file; made if absent.
        conditions: what an outcome depends on besides the program; outcomes under others are passed over.

    Raises:
        ProxyByteError: if a line is no verdict, or another process writes the file.
    """

    def __init__(self, path: Path, conditions: Any) -> None:
        super().__init__(path)
        self._salt = json.dumps(conditions, sort_keys=True)
        self._held: dict[str, Outcome] = {}
        for number, line in enumerate(self.content.split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                self._held[row["program"]] = Outcome(Status(row["status"]), row["detail"], row["seconds"])
            except (ValueError, KeyError, TypeError) as error:
                self.close()
                raise ProxyByteError(f"{path}, line {number}: not a verdict ({error}): remove that file") from error

    def _key(self, program: Trial | str) -> str:
        parts = [program.code, program.tests] if isinstance(program, Trial) else [program]
        return hashlib.sha256(json.dumps([_WAY_OF_TESTING, self._salt, *parts]).encode("ascii")).hexdigest()[:32]

    def __contains__(self, program: Trial | str) -> bool:
        return self._key(program) in self._held

    def __getitem__(self, program: Trial | str) -> Outcome:
        return self._held[self._key(program)]

    def record(self, program: Trial | str, outcome: Outcome) -> None:
        """Keep an outcome."""
        key = self._key(program)
        self._held[key] = outcome
        row = {"program": key, "status": outcome.status, "detail": outcome.detail, "seconds": outcome.seconds}
        self.add([row])


@dataclass(frozen=True)
class Bench:
    """How samples are tried.

    Attributes:
        limits: of each program.
        wall: see :func:`proxybyte.eval.sandbox.choose_wall`.
        workers: programs at once; one a core where ``None``.
        progress: show a bar on stderr.
        known: a file of verdicts that need not be found again; new ones are added to it.
    """

    limits: Limits
    wall: Wall
    workers: int | None = None
    progress: bool = False
    known: Path | None = None


def judge(problems: Sequence[Problem], samples: Sequence[Sample], bench: Bench) -> list[Outcome]:
    """Outcome of each sample.

    Raises:
        ProxyByteError: if a sample is of none of ``problems``, or the sandbox cannot be built.
    """
    by_id = {problem.task_id: problem for problem in problems}
    for sample in samples:
        if sample.task_id not in by_id:
            raise ProxyByteError(f"there is a sample of {sample.task_id}, which is none of the problems asked for")
    return run_known([by_id[sample.task_id].trial(sample.completion) for sample in samples], bench)


def run_known(programs: Sequence[Trial | str], bench: Bench) -> list[Outcome]:
    """Outcome of each of ``programs``; those that ``bench.known`` holds under these limits are not run again."""
    if bench.known is None:
        return run_programs(programs, bench.limits, bench.wall, workers=bench.workers, progress=bench.progress)
    with VerdictFile(bench.known, [str(bench.wall), vars(bench.limits)]) as verdicts:
        unknown = [program for program in dict.fromkeys(programs) if program not in verdicts]
        run_programs(
            unknown,
            bench.limits,
            bench.wall,
            workers=bench.workers,
            progress=bench.progress,
            on_outcome=verdicts.record,
        )
        return [verdicts[program] for program in programs]


def canonical_samples(problems: Sequence[Problem]) -> list[Sample]:
    """The published solution of each problem, as if a model had written it."""
    return [Sample(problem.task_id, 0, problem.canonical) for problem in problems]


@dataclass(frozen=True)
class Scores:
    """What samples of a set scored.

    Attributes:
        task_ids: problems that have samples, in order; shape ``(P,)`` below.
        samples: number of samples of each.
        correct: how many of them passed.
        endings: how many programs ended in which way.
        missing: problems that were asked for and have no sample; no score counts them.
    """

    task_ids: list[str]
    samples: np.ndarray
    correct: np.ndarray
    endings: dict[str, int]
    missing: list[str] = field(default_factory=list)

    def pass_at(self, k: int) -> Estimate:
        """pass@k over the problems, with its interval."""
        return estimate(pass_at_k(self.samples, self.correct, k))

    def as_dict(self, ks: Sequence[int]) -> dict[str, Any]:
        """For JSON."""
        return {
            "problems": len(self.task_ids),
            "problems_without_samples": self.missing,
            "samples": int(self.samples.sum()),
            "solved": int((self.correct > 0).sum()),
            **{f"pass@{k}": vars(self.pass_at(k)) for k in ks},
            "endings": self.endings,
            "correct": dict(zip(self.task_ids, self.correct.tolist(), strict=True)),
        }


def score(problems: Sequence[Problem], samples: Sequence[Sample], outcomes: Sequence[Outcome]) -> Scores:
    """Scores of ``samples`` whose outcomes are known."""
    order = {problem.task_id: place for place, problem in enumerate(problems)}
    drawn = np.zeros(len(problems), np.int64)
    correct = np.zeros(len(problems), np.int64)
    for sample, outcome in zip(samples, outcomes, strict=True):
        drawn[order[sample.task_id]] += 1
        correct[order[sample.task_id]] += outcome.passed
    held = np.flatnonzero(drawn)
    endings = Counter(str(outcome.status) for outcome in outcomes)
    ids = [problem.task_id for problem in problems]
    missing = [ids[place] for place in np.flatnonzero(drawn == 0).tolist()]
    return Scores([ids[place] for place in held.tolist()], drawn[held], correct[held], dict(endings), missing)


def usable_ks(scores: Scores, asked: Sequence[int]) -> list[int]:
    """Those of ``asked`` that every problem has samples for.

    Raises:
        ProxyByteError: if there is none.
    """
    fewest = int(scores.samples.min())
    usable = sorted({k for k in asked if 1 <= k <= fewest})
    if not usable:
        raise ProxyByteError(f"pass@{min(asked)} needs {min(asked)} samples of every problem, and one has {fewest}")
    return usable
