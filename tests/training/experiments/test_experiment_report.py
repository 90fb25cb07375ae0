"""Reports of a plan that truly ran."""

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scipy import stats

from proxybyte.cli import main
from proxybyte.training.experiments.report import (
    as_html,
    as_json,
    as_markdown,
    curve,
    read_report,
    tables,
    write_report,
)


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="module")
def figures(finished) -> dict[str, list[float]]:
    """Bits per byte of each arm, seeds in order, from the result files."""
    found = {}
    for arm, key in (("bytes", "raw_bpb"), ("proxy", "raw_bpb"), ("tokenizer", "compressed_bpb")):
        paths = [finished / "cells" / f"{arm}-seed{seed}" / "result.json" for seed in (0, 1)]
        found[arm] = [json.loads(path.read_text())[key] for path in paths]
    return found


def test_means_intervals_and_paired_tests_are_those_of_the_result_files(finished, figures):
    report = read_report(finished)
    assert [condition.name for condition in report.conditions] == ["bytes", "proxy", "tokenizer"]
    for condition in report.conditions:
        values, interval = figures[condition.name], condition.bits_per_byte
        assert interval.mean == pytest.approx(sum(values) / 2)
        low, high = stats.t.interval(0.95, 1, loc=interval.mean, scale=stats.sem(values))
        assert (interval.low, interval.high) == pytest.approx((low, high))
    assert [comparison.condition for comparison in report.comparisons] == ["proxy", "tokenizer"]
    for comparison in report.comparisons:
        theirs = stats.ttest_rel(figures[comparison.condition], figures["bytes"])
        assert comparison.test.p == pytest.approx(theirs.pvalue)
        assert comparison.test.difference.mean == pytest.approx(
            sum(figures[comparison.condition]) / 2 - sum(figures["bytes"]) / 2
        )
        assert comparison.p_holm >= comparison.test.p


def test_curves_are_means_over_seeds_point_by_point(finished):
    report = read_report(finished)
    for condition in report.conditions:
        points = curve(condition)
        assert len(points) == 3
        for number, point in enumerate(points):
            several = [result.curve[number] for result in condition.results]
            assert point.bits_per_byte == pytest.approx(sum(p.bits_per_byte for p in several) / 2)
            assert point.lowest <= point.bits_per_byte <= point.highest
        assert points[0].flops == 0
        assert points[-1].flops == pytest.approx(4e8, rel=0.05)
        assert points[1].text_bytes < points[2].text_bytes


class Sources(HTMLParser):
    """Everything that a page loads or links to."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_needs_nothing_but_itself(finished, tmp_path):
    page = write_report(read_report(finished), tmp_path)
    parser = Sources()
    parser.feed(page.read_text())
    assert len(parser.found) == 3
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in parser.found)
    assert "url(" not in page.read_text()
    for condition in ("bytes", "proxy", "tokenizer"):
        assert condition in parser.text


def test_what_people_wrote_is_escaped_in_the_page(copy):
    plan = json.loads((copy / "plan.json").read_text())
    (copy / "plan.json").write_text(json.dumps({**plan, "title": "<b>a & b</b>", "question": "<script>x</script>"}))
    page = as_html(read_report(copy), {})
    assert "<b>" not in page
    assert "<script>" not in page
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in page


def test_markdown_json_and_page_hold_the_same_figures(finished, figures):
    report = read_report(finished)
    text, page = as_markdown(report), as_html(report, {})
    values = json.loads(json.dumps(as_json(report), allow_nan=False))
    for row in values["conditions"]:
        mean = f"{row['bits_per_byte']['mean']:.4f}"
        assert re.search(rf"\| {row['name']} \| \w+ \| 2 \| {mean} \|", text)
        assert f"<td>{mean}</td>" in page
    by_cell = {cell["cell"]: cell for cell in values["cells"]}
    assert [by_cell[f"proxy-seed{seed}"]["raw_bpb"] for seed in (0, 1)] == figures["proxy"]
    assert len(by_cell) == 6
    assert all(len(row) == len(table.head) for table in tables(report) for row in table.rows)


def test_unfinished_cells_are_named_and_left_out(copy, capsys):
    (copy / "cells" / "proxy-seed1" / "result.json").unlink()
    assert main(["experiment", "report", str(copy)]) == 0
    assert "1 cells are not finished: proxy-seed1." in capsys.readouterr().out
    report = read_report(copy)
    proxy = next(condition for condition in report.conditions if condition.name == "proxy")
    assert math.isinf(proxy.bits_per_byte.high)
    assert [comparison.test.difference.n for comparison in report.comparisons] == [1, 2]
    assert json.loads((copy / "report" / "report.json").read_text())["unfinished"] == ["proxy-seed1"]


def test_sizes_are_drawn_where_they_differ(finished, tmp_path, copy):
    plan = json.loads((copy / "plan.json").read_text())
    plan["models"]["two"] = plan["models"]["one"]
    (copy / "plan.json").write_text(json.dumps(plan))
    for path in list((copy / "cells").iterdir()):
        arm, seed = path.name.split("-")
        for model in ("one", "two"):
            target = copy / "cells" / f"{arm}-{model}-{seed}"
            shutil.copytree(path, target)
            result = json.loads((target / "result.json").read_text())
            result["backbone_parameters"] *= 1 + (model == "two")
            (target / "result.json").write_text(json.dumps(result))
    report = read_report(copy)
    assert report.several_models
    assert [c.baseline for c in report.comparisons] == ["bytes-one", "bytes-two"] * 2
    write_report(report, tmp_path / "out")
    assert (tmp_path / "out" / "scaling.png").stat().st_size > 1000
    assert not read_report(finished).several_models


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "plan.json").unlink(), "is no experiment: it has no plan.json"),
        (lambda folder: (folder / "plan.json").write_text("{"), "plan.json cannot be read"),
        (lambda folder: shutil.rmtree(folder / "cells"), "no cell of .* is finished"),
        (lambda folder: (folder / "cells/proxy-seed0/result.json").write_text("{}"), "is no result of a cell"),
    ],
)
def test_folders_that_hold_no_report_are_refused_in_one_sentence(copy, capsys, damage, message):
    damage(copy)
    assert main(["experiment", "report", str(copy)]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told)
    assert told.count("\n") == 1


def test_a_report_of_another_plan_version_is_refused(copy, capsys):
    plan = json.loads((copy / "plan.json").read_text())
    plan["train"]["optimizer"]["lr"] = 0.125
    (copy / "plan.json").write_text(json.dumps(plan))
    assert main(["experiment", "report", str(copy)]) == 2
    assert "is of another version of the plan, with train.optimizer.lr=0.01 (now 0.125)" in capsys.readouterr().err
