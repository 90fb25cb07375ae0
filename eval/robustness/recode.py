"""ReCode's published perturbed prompts, from a folder or the Hub."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.problems import CodeSet, Problem, parse_problems
from proxybyte.eval.code.sources import read_rows
from proxybyte.eval.robustness.variants import Family, RobustnessSet, Variant

_SPLIT_MARK = "# print('@@this is the line to split##')"
"""ReCode's own: in a row's ``partial`` it stands on the line where prompt and solution part."""


def load_recode(place: str, code_set: CodeSet, nominal: list[Problem]) -> RobustnessSet:
    """Every perturbed file below a folder, as ReCode's release lays them out.

    Files are ``FAMILY/SET_PERTURBATION_sSEED.jsonl`` (or ``.jsonl.gz``) at any depth. The unperturbed half-solved
    prompts are taken from the rows' ``partial``. Solutions are indented as their prompt is.

    Args:
        place: the folder, or ``OWNER/NAME`` of a data set on the Hub that holds those files.
        code_set: which set's files to take.
        nominal: the problems as published.

    Raises:
        ProxyByteError: if there is no such file, or one is broken or of other problems.
    """
    folder = Path(place) if Path(place).is_dir() else _download(place)
    pattern = re.compile(rf"{code_set.value}_(\w+)_s(\d+)\.jsonl(\.gz)?")
    files = sorted((file, match) for file in folder.rglob("*.jsonl*") if (match := pattern.fullmatch(file.name)))
    wanted = {problem.task_id for problem in nominal}
    variants = []
    partial: dict[str, Problem] = {}
    whole = {problem.task_id: problem for problem in nominal}
    for file, match in files:
        if file.parent.name not in set(Family):
            continue
        rows = [row for row in read_rows(file) if row.get("task_id") in wanted]
        if not rows:
            raise ProxyByteError(f"{file} perturbs none of the problems asked for")
        problems = [_indented_alike(problem) for problem in parse_problems(rows, code_set, str(file))]
        variants.append(Variant(Family(file.parent.name), match[1], int(match[2]), tuple(problems)))
        for row, problem in zip(rows, problems, strict=True):
            if "partial" in row and problem.task_id not in partial:
                # A solution of one line has no half: the row says null, and its prompt is the whole one.
                one_line = row["partial"] is None
                partial[problem.task_id] = whole[problem.task_id] if one_line else _unperturbed(row, problem, file)
    if not variants:
        raise ProxyByteError(
            f"{place} holds no perturbed file of {code_set} (FAMILY/{code_set.value}_NAME_s0.jsonl, families "
            f"{', '.join(Family)}): give the folder of ReCode's data release"
        )
    ordered = tuple(partial[problem.task_id] for problem in nominal if problem.task_id in partial)
    return RobustnessSet(
        nominal=Variant(None, "nominal", 0, tuple(nominal)),
        partial=Variant(None, "nominal-partial", 0, ordered),
        variants=tuple(variants),
    )


def _unperturbed(row: dict[str, Any], problem: Problem, file: Path) -> Problem:
    before, mark, after = row["partial"].partition(_SPLIT_MARK)
    if not mark:
        raise ProxyByteError(f"{file}: the 'partial' of {problem.task_id} has no line to split at")
    prompt = before[: before.rfind("\n") + 1]
    return replace(problem, prompt=prompt, head=prompt, canonical=after.removeprefix("\n"))


def _indented_alike(problem: Problem) -> Problem:
    """The solution in tabs where the prompt is: as published it is in spaces, which no Python takes after tabs."""
    in_tabs, in_spaces = (len(re.findall(start, problem.prompt, re.MULTILINE)) for start in (r"^\t", r"^ {4}"))
    if in_tabs <= in_spaces:  # a docstring may hold a few of the other kind
        return problem
    canonical = re.sub(r"^( {4})+", lambda spaces: "\t" * (len(spaces[0]) // 4), problem.canonical, flags=re.MULTILINE)
    return replace(problem, canonical=canonical)


def _download(place: str) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", place):
        raise ProxyByteError(f"no such folder: {place}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, repo_type="dataset"))
    except Exception as error:  # the Hub's client raises many kinds, some of them not its own
        reason = " ".join(str(error).split())[:200]
        raise ProxyByteError(f"{place} is no folder here, and cannot be had from the Hub ({reason})") from error
