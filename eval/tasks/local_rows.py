"""Reads the JSONL file beside a task's YAML file.

lm-eval resolves a relative ``data_files`` against the working directory, so a task folder would work from one place
only; this function, named in the YAML, resolves it against the folder. It imports nothing of ours, so that the folder
can be copied anywhere.
"""

import json
from pathlib import Path

from datasets import Dataset, DatasetDict


def load(rows_file: str, **_unused) -> DatasetDict:
    """Rows of ``rows_file`` (a name in this folder) as the split ``test``; lm-eval passes its model arguments too."""
    lines = (Path(__file__).parent / rows_file).read_bytes().split(b"\n")  # str.splitlines splits inside strings
    return DatasetDict({"test": Dataset.from_list([json.loads(line) for line in lines if line.strip()])})
