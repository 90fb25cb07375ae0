"""Prose with typos, the same for every model (``proxybyte.eval.noise``)."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from proxybyte.eval.noise import Noise, noised


def load(rows_file: str, share: float, **_unused: Any) -> DatasetDict:
    """Rows of ``rows_file`` (a name in this folder) as the split ``test``, ``share`` of their characters struck.

    lm-eval passes its model arguments too.
    """
    lines = (Path(__file__).parent / rows_file).read_bytes().split(b"\n")
    texts = [json.loads(line)["text"] for line in lines if line.strip()]
    rows = [{"text": noised(text, share, Noise.MIXED, number)} for number, text in enumerate(texts)]
    return DatasetDict({"test": Dataset.from_list(rows)})
