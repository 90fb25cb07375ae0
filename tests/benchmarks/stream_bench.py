"""Rows of mixed views per second, and the time to plan a large run.

The baseline of the row figure is what one writes first: documents fetched through ``datasets``, symbols appended to a
Python list, rows cut from it. Both sides read the same prepared split, made here from the standard library's source.
"""

import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from figures import Figure, in_a_process, peak_growth_mb

from proxybyte.training.stream.mixed_view import MixedViewDataset, collate
from proxybyte.training.stream.placement import Lengths
from proxybyte.training.stream.plan import BudgetUnit, PlanConfig, StreamPlan
from proxybyte.training.stream.prepared import NUM_BORDERS, PreparedSplit
from proxybyte.training.stream.schedule import ScheduleConfig

ROWS_AT_ONCE = 16
ROW_LENGTH = 4096
MEGABYTE = 1e6


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``stream_text_mb_per_s`` and ``plan_10m_docs_s`` (with its peak memory) for ``make bench``."""
    yield _stream_rate()
    yield from _plan_of_ten_million()


def _standard_library(limit: int = 24_000_000) -> list[bytes]:
    texts, total = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or total > limit:
            continue
        text = path.read_bytes()
        if text:
            texts.append(text)
            total += len(text)
    return texts


def _write_split(folder: Path, texts: list[bytes]) -> None:
    """A split coded three bytes a symbol: the ratio of a real tokenizer without the time to train one."""
    symbols = [np.arange(-(-len(text) // 3), dtype=np.uint16) for text in texts]
    table = pa.table(
        {
            "text": pa.array(texts, pa.large_binary()),
            "symbols": pa.array(symbols, pa.large_list(pa.uint16())),
            "n_bytes": pa.array([len(text) for text in texts], pa.int64()),
            "n_symbols": pa.array([len(code) for code in symbols], pa.int64()),
            "borders": pa.array([[0] * NUM_BORDERS] * len(texts), pa.list_(pa.uint32(), NUM_BORDERS)),
            "source": pa.array([""] * len(texts)),
        }
    )
    datasets.disable_progress_bars()
    datasets.Dataset(table).save_to_disk(str(folder))
    datasets.enable_progress_bars()


def _stream_rate() -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        _write_split(Path(folder) / "train", _standard_library())
        split = PreparedSplit(Path(folder) / "train")
        ours = max(_our_rate(split) for _ in range(3))
        baseline = max(_list_rate(Path(folder) / "train") for _ in range(2))
    return {
        "name": "stream_text_mb_per_s",
        "value": ours,
        "unit": "MB of source text/s, one core, 90% compressed, plan + rows + collate",
        "baseline": baseline,
        "ratio": ours / baseline,
    }


def _our_rate(split: PreparedSplit) -> float:
    start = time.process_time()
    schedule = ScheduleConfig(warmup=0.0, rate=0.9)
    plan = StreamPlan(Lengths(split.n_bytes, split.n_symbols), PlanConfig(row_length=ROW_LENGTH, schedule=schedule))
    dataset = MixedViewDataset(split, plan)
    text = 0.0
    for row in range(0, len(dataset), ROWS_AT_ONCE):
        batch = collate(dataset.batch(range(row, min(row + ROWS_AT_ONCE, len(dataset)))))
        text += sum(batch.text_bytes.values())
    return text / MEGABYTE / (time.process_time() - start)


def _list_rate(folder: Path) -> float:
    start = time.process_time()
    rows = datasets.load_from_disk(str(folder))
    buffer: list[int] = []
    text = 0
    for number in np.random.default_rng(0).permutation(len(rows))[:400].tolist():
        row = rows[number]
        text += row["n_bytes"]
        if number % 10:
            buffer += [14, *(320 + code for code in row["symbols"]), 15, 2]
        else:
            buffer += [12, *(64 + byte for byte in row["text"]), 13, 2]
        while len(buffer) >= ROW_LENGTH:
            np.array(buffer[:ROW_LENGTH])
            del buffer[:ROW_LENGTH]
    return text / MEGABYTE / (time.process_time() - start)


def time_plan(documents: int) -> tuple[float, float]:
    """CPU seconds to plan one epoch over ``documents``, and the growth of peak memory in MB, in this process."""
    rng = np.random.default_rng(0)
    n_bytes = rng.integers(100, 12_000, documents).astype(np.uint32)
    n_symbols = (n_bytes // 3).astype(np.int32)
    lengths, config = (
        Lengths(n_bytes, n_symbols),
        PlanConfig(row_length=ROW_LENGTH, budget_unit=BudgetUnit.EPOCHS),
    )
    start = time.process_time()
    megabytes = peak_growth_mb(lambda: StreamPlan(lengths, config))
    return time.process_time() - start, megabytes


def _plan_of_ten_million() -> list[Figure]:
    """In a process of its own, so that the peak is the plan's; the baselines are the limits it has to keep."""
    seconds, megabytes = in_a_process("stream_bench.time_plan(10_000_000)")
    return [
        {
            "name": "plan_10m_docs_s",
            "value": seconds,
            "unit": "CPU s (limit 10)",
            "baseline": 10.0,
            "ratio": 10.0 / seconds,
        },
        {
            "name": "plan_10m_docs_mb",
            "value": megabytes,
            "unit": "MB above the lengths (limit 1000)",
            "baseline": 1000.0,
            "ratio": 1000.0 / megabytes,
        },
    ]
