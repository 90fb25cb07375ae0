"""The small trained export that the groups of other programs take, and held-out text for it.

It is what ``proxybyte quickstart`` leaves in ``runs/quickstart``; ``PROXYBYTE_BENCH_TOUR`` names another such folder.
"""

import os
from pathlib import Path

import pyarrow.parquet as pq
from figures import NotMeasured

from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.hub_configs.gguf_file import GgufType


def tour() -> Path:
    """The folder.

    Raises:
        NotMeasured: if it holds no export.
    """
    folder = Path(os.environ.get("PROXYBYTE_BENCH_TOUR", "runs/quickstart"))
    if not (folder / "native" / "config.json").is_file():
        raise NotMeasured(f"{folder} holds no trained export: 'make quickstart' makes one in minutes")
    return folder


def held_out(folder: Path, count: int, size: int) -> list[bytes]:
    """The first ``size`` bytes of ``count`` held-out documents, spread over the split; cut where a character ends."""
    table = pq.read_table(sorted((folder / "corpus").glob("validation-*.parquet"))[0], columns=["text"])
    texts = [text[:size] for text in table["text"].to_pylist() if len(text) > size]
    step = max(1, len(texts) // count)
    return [text.decode("utf-8", "ignore").encode() for text in texts[::step][:count]]


def gguf(folder: Path, out: Path, kind: GgufType) -> Path:
    """The export in ``folder`` as a GGUF file below ``out``."""
    made = export_model(folder / "native", out / kind, ExportOptions(ExportFormat.GGUF, gguf_type=kind))
    return next(made.glob("*.gguf"))
