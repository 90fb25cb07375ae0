"""Levers as arms: superposed bytes and suffix rows in cells, slices of time, and the ranking of arms."""

import json
import shutil
import signal
import time

import pytest
from scipy import stats

from proxybyte.cli import main
from proxybyte.training.experiments.ranking import ranking
from proxybyte.training.experiments.report import draw_report, read_report
from proxybyte.training.experiments.runner import RunOptions, TimeSlice, run_plan
from proxybyte.training.experiments.schema import lay_over, parse_plan
from proxybyte.training.experiments.views_meet import transfer_curve

RATES = {"optimizer.lr": [1e-3, 1e-2]}
FIRST_RAW = {"plan.schedule.rate": 1.0, "plan.schedule.warmup": 0.0, "plan.schedule.decay": 0.5}
ARMS = {
    "bytes": {"kind": "bytes", "vary": RATES},
    "suffix": {
        "kind": "bytes", "compressor": "bpe", "set": {"suffix_rows.mix.value": 0.5, "raw_rows_only": True},
        "vary": {"optimizer.lr": [1e-2]},
    },
    "hashed": {
        "kind": "bytes", "compressor": "bpe",
        "set": {"suffix_rows.mix.value": 0.5, "suffix_rows.hashed": 3, "raw_rows_only": True},
    },
    "cross": {
        "kind": "bytes", "compressor": "bpe",
        "set": {
            "levers.cross_view.symbols.value": 0.2, "levers.cross_view.borders.value": 0.1, "raw_rows_only": True,
        },
    },
    "bags": {"kind": "proxy", "pairing": "none", "set": {**FIRST_RAW, "plan.superposed": 4}},
    "spelled": {
        "kind": "proxy", "compressor": "bpe", "set": {"levers.spelled_rows": True, "evaluation.transfer": True},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def values(corpus, plan_values):
    return {**plan_values, "arms": ARMS, "seeds": [0, 1, 2]}


@pytest.fixture(scope="module")
def folder(values, tmp_path_factory):
    out = tmp_path_factory.mktemp("levers")
    progress = run_plan(parse_plan(values, "levers"), RunOptions(out, workers=1))
    assert not progress.failed
    assert len(progress.finished) == 21
    return out


def test_arms_are_ranked_at_their_best_rate_beside_the_baseline(folder, tmp_path, capsys):
    path = tmp_path / "arms.json"
    assert main(["experiment", "report", str(folder), "--out", str(tmp_path / "report"), "--arms", str(path)]) == 0
    told = json.loads(path.read_text())
    figures = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("cells/*/result.json")}
    rates = ("0.001", "0.01")
    best = min(rates, key=lambda rate: figures[f"bytes-optimizer.lr-{rate}-seed0"]["raw_bpb"])
    bytes_ = [figures[f"bytes-optimizer.lr-{best}-seed{seed}"]["raw_bpb"] for seed in range(3)]
    assert told["arms"]["bytes-one"]["bpb"] == bytes_
    assert "minus_bytes" not in told["arms"]["bytes-one"]
    for arm in ("suffix", "hashed", "cross", "bags", "spelled"):
        mine = [figures[f"{arm}-seed{seed}"]["raw_bpb"] for seed in range(3)]
        assert told["arms"][f"{arm}-one"]["bpb"] == mine
        differences = [a - b for a, b in zip(mine, bytes_, strict=True)]
        interval = stats.t.interval(0.95, 2, loc=sum(differences) / 3, scale=stats.sem(differences))
        assert told["arms"][f"{arm}-one"]["minus_bytes"] == pytest.approx(interval)
    used = [f for name, f in figures.items() if not name.startswith("bytes") or f"lr-{best}-" in name]
    assert told["symbols_per_weight"] == min(f["symbols"] / f["backbone_parameters"] for f in used)


def test_the_report_shows_whether_views_meet_where_cells_asked(folder):
    report = read_report(folder)
    met = {condition.name: transfer_curve(condition.results) for condition in report.conditions}
    assert [name for name, points in met.items() if points] == ["spelled"]
    files = [folder / f"cells/spelled-seed{seed}/run/metrics.jsonl" for seed in range(3)]
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    last = [[line for line in some if line["kind"] == "evaluation"][-1] for some in lines]
    mean = sum(line["validation/transfer/compressed_given_bpb"] for line in last) / 3
    assert met["spelled"][-1].compressed_given == pytest.approx(mean)
    assert met["spelled"][-1].step == last[0]["step"] and met["spelled"][-1].flops > 0
    assert set(draw_report(report)) == {"seeds", "flops", "bytes", "transfer"}


def test_fewer_than_three_seeds_have_no_interval(values, folder):
    report = read_report(folder)
    conditions = tuple(type(c)(c.name, c.cells[:2], c.results[:2]) for c in report.conditions)
    told = ranking(type(report)(report.plan, conditions, report.comparisons, ()))
    assert told["arms"]["bags-one"]["minus_bytes"] is None


def test_equal_flops_whatever_the_lever(folder):
    results = [json.loads(path.read_text()) for path in folder.glob("cells/*/result.json")]
    assert all(result["flops"] == pytest.approx(4.0e8, rel=0.2) for result in results)
    assert all((result["compressed_bpb"] is None) == (result["condition"] != "spelled") for result in results)


def test_a_slice_stops_and_the_same_command_goes_on(values, folder, tmp_path, server):
    plan = lay_over(values, {"arms": {"bytes": {"kind": "bytes", "vary": {}}}, "match": {"budget": 2.0e9}})
    path, out = tmp_path / "plan.json", tmp_path / "out"
    path.write_text(json.dumps({**plan, "arms": {"bytes": {"kind": "bytes"}}}))
    shutil.copytree(folder / "shared", out / "shared")
    command = ["experiment", "run", path, "--out", out, "--workers", "1"]
    code, told = server.run([*map(str, command), "--slice-minutes", "0.0001"])
    assert code == 0, told
    assert "stopped in" in told
    code, told = server.run([*map(str, command)])
    assert "3 cells finished" in told


def test_a_slice_signals_only_who_listens():
    heard = []
    with TimeSlice(0.002) as time_slice:
        time.sleep(0.5)
        assert time_slice.over
        previous = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
        time.sleep(0.5)
        signal.signal(signal.SIGTERM, previous)
    assert heard == [1]
