"""Samples of every problem from a model, in batches that are the same whether or not the run was cut off."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proxybyte.eval.code.completers import Completer
from proxybyte.eval.code.problems import Problem
from proxybyte.eval.code.samples import Sample, SampleFile
from proxybyte.progress import Progress


@dataclass(frozen=True)
class SamplePlan:
    """How many samples, and how they are drawn.

    Attributes:
        samples: of each problem.
        batch_size: prompts that generate side by side.
        seed: of sampling.
        progress: show a bar on stderr.
    """

    samples: int = 1
    batch_size: int = 8
    seed: int = 0
    progress: bool = False


def generate_samples(
    completer: Completer, problems: Sequence[Problem], plan: SamplePlan, file: SampleFile
) -> list[Sample]:
    """All samples of ``problems``, in their order; what ``file`` lacks is generated and written to it.

    Batches are laid out over the whole plan, the longest prompts first, and each draws from a seed of its own: a run
    that was killed and started again writes what it would have written at once.
    """
    pending = [
        (number, batch)
        for number, batch in enumerate(_batches(problems, plan))
        if any((problem.task_id, place) not in file.held for problem, place in batch)
    ]
    total = len(problems) * plan.samples
    missing = sum(len(batch) for _, batch in pending)
    with Progress(
        total=total, initial=total - missing, desc="generating", unit="sample", disable=not plan.progress
    ) as bar:
        for number, batch in pending:
            prompts = [problem.prompt for problem, _ in batch]
            seed = zlib.crc32(f"{plan.seed}/{number}".encode("ascii"))
            texts = completer.complete(prompts, batch[0][0].stops, seed)
            file.record([Sample(p.task_id, place, text) for (p, place), text in zip(batch, texts, strict=True)])
            bar.update(len(batch))
    return [
        Sample(problem.task_id, place, file.held[problem.task_id, place])
        for problem in problems
        for place in range(plan.samples)
    ]


def _batches(problems: Sequence[Problem], plan: SamplePlan) -> Iterator[list[tuple[Problem, int]]]:
    for stops in dict.fromkeys(problem.stops for problem in problems):
        wanted = [(problem, place) for problem in problems for place in range(plan.samples) if problem.stops == stops]
        wanted.sort(key=lambda pair: -len(pair[0].prompt))
        for start in range(0, len(wanted), plan.batch_size):
            yield wanted[start : start + plan.batch_size]
