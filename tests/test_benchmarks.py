"""What ``make bench`` promises: figures are kept as they come, no group loses another, memory is never read as 0."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from figures import in_a_process, peak_growth_mb

BENCHMARKS = Path(__file__).parent / "benchmarks"
ROW = '{"name": "%s", "value": %s, "unit": "MB", "baseline": 1.0, "ratio": 1.0}'


@pytest.fixture
def bench(tmp_path):
    """Runs a copy of the runner over invented groups, given as the body of ``measure``."""

    def run(groups: dict[str, str], seconds: float = 600.0) -> subprocess.CompletedProcess:
        for name in ("__main__.py", "figures.py"):
            (tmp_path / name).write_text((BENCHMARKS / name).read_text())
        for name, body in groups.items():
            lines = [
                "from figures import NotMeasured",
                "def measure(long):",
                *(f"    {line}" for line in body.split("\n")),
            ]
            (tmp_path / f"{name}_bench.py").write_text("\n".join(lines) + "\n")
        runner = (tmp_path / "__main__.py").read_text().replace("SECONDS = 870.0", f"SECONDS = {seconds}")
        (tmp_path / "__main__.py").write_text(runner)
        words = [sys.executable, str(tmp_path), "--out", str(tmp_path / "bench.json")]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    return run


def kept(folder: Path) -> dict[str, float]:
    return {row["name"]: row["value"] for row in json.loads((folder / "bench.json").read_text())}


def test_each_figure_is_kept_and_a_group_that_fails_or_is_cut_off_loses_no_other(bench, tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps([json.loads(ROW % (name, 7)) for name in ("old", "a1")]))
    groups = {
        "a": f"yield {ROW % ('a1', 1)}\nraise OSError('broken')",
        "b": f"yield {ROW % ('b1', 2)}",
        "c": "raise NotMeasured('train it')",
        "d": f"yield {ROW % ('d1', 3)}\nimport time\ntime.sleep(600)",
    }
    start = time.monotonic()
    bench({})
    starts = time.monotonic() - start  # of the runner, as of a group: long where the machine is busy
    start = time.monotonic()
    done = bench(groups, seconds=3 + 12 * starts)
    assert time.monotonic() - start < 120
    assert kept(tmp_path) == {"old": 7, "a1": 1, "b1": 2, "d1": 3}
    assert done.returncode == 1
    assert "a: failed (1)" in done.stderr
    assert "d: cut off" in done.stderr
    assert "b:" not in done.stderr
    assert "c: not measured: train it" in done.stdout


@pytest.mark.parametrize("value", ["0.0", "-1.0", "float('nan')"])
def test_a_figure_of_nothing_fails_loudly_and_is_not_kept(bench, tmp_path, value):
    done = bench({"a": f"yield {ROW % ('a1', value)}"})
    assert done.returncode == 1
    assert "a1 is" in done.stderr
    assert not (tmp_path / "bench.json").exists()


def test_growth_of_memory_is_seen_below_an_earlier_peak():
    """By an array of known size, after a larger one raised the process's peak and was freed."""
    # In a process of its own: what earlier work left with the allocator would be used again without growth.
    (grown,) = in_a_process("figures.peak_growth_mb(lambda: b'1' * 80_000_000) if b'1' * 200_000_000 else 0,")
    assert 78 <= grown < 90
    with pytest.raises(RuntimeError, match="which is no figure"):
        peak_growth_mb(lambda: None)


def test_figures_of_a_child_do_not_depend_on_the_parents_peak():
    held = np.ones(40_000_000)  # 320 MB, more than the child ever holds
    (grown,) = in_a_process("figures.peak_growth_mb(lambda: b'1' * 80_000_000),")
    assert 78 <= grown < 90
    assert held.nbytes > grown


def test_every_group_is_known_to_the_order_of_the_runner():
    text = (BENCHMARKS / "__main__.py").read_text()
    names = {path.stem.removesuffix("_bench") for path in BENCHMARKS.glob("*_bench.py")}
    assert len(names) == 15
    assert all(f'"{name}"' in text for name in names)
