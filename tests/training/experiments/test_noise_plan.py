"""Noise in a plan: curves of each cell in its own view, where conditions cross, and what the report shows of it."""

import json
import math

import pytest
import torch

from proxybyte import ProxyByteForCausalLM
from proxybyte.eval import Noise, NoiseCurve
from proxybyte.eval.noise import noised_bytes
from proxybyte.training.compressors import load_compressor
from proxybyte.training.experiments.cell_run import final_documents
from proxybyte.training.experiments.noise_report import crossings
from proxybyte.training.experiments.report import draw_report, read_report, write_report
from proxybyte.training.experiments.results import CellResult
from proxybyte.training.experiments.runner import RunOptions, run_plan
from proxybyte.training.experiments.schema import lay_over, parse_plan

SHARES = [0.0, 0.3]


@pytest.fixture(scope="module")
def folder(plan_values, tmp_path_factory):
    noise = {"kinds": ["delete", "swap"], "shares": SHARES, "seeds": 2, "documents": 2}
    # Short enough for one window each.
    evaluation = {"noise": noise, "final_max_bytes": 40}
    values = lay_over(plan_values, {"evaluation": evaluation, "match": {"budget": 1.0e8}})
    out = tmp_path_factory.mktemp("noise")
    progress = run_plan(parse_plan(values, "noise"), RunOptions(out, workers=1))
    assert not progress.failed and len(progress.finished) == 6
    return out


@pytest.mark.parametrize("cell", ["bytes-seed0", "tokenizer-seed1"])
def test_a_cells_curve_is_that_of_its_model_on_noised_text(folder, cell):
    report = read_report(folder)
    result = next(r for c in report.conditions for r in c.results if r.cell == cell)
    (data,) = {path.parent for path in folder.glob("shared/**/compressor") if "prepared" in str(path.parent)}
    texts = final_documents(data, report.plan.evaluation).texts[:2]
    model = ProxyByteForCausalLM.from_pretrained(folder / "cells" / cell / "run" / "model").double().eval()
    compressor = load_compressor(data / "compressor")
    for curve, kind in zip(result.noise, (Noise.DELETE, Noise.SWAP), strict=True):
        assert (curve.kind, curve.shares) == (kind, tuple(SHARES))
        for share, bits in zip(SHARES, curve.bits, strict=True):
            for seed, found in enumerate(bits):
                assert found == pytest.approx(expected(model, compressor, cell, share, kind, seed, texts), rel=1e-4)


def expected(model, compressor, cell, share, kind, seed, texts):
    """Bits per byte, each document alone in windows of a row, symbol by symbol."""
    nats = count = 0
    for text in (noised_bytes(text, share, kind, seed) for text in texts):
        raw = cell.startswith("bytes")
        ids = [64 + b for b in text] if raw else [320 + int(c) for c in compressor.encode_batch([text])[0]]
        count += len(text)
        assert len(ids) <= 63
        with torch.no_grad():
            logits = model(torch.tensor([[12 if raw else 14, *ids]]), use_cache=False).logits[0]
        logits = logits[:, :320] if raw else logits
        nats -= sum(float(logits[place].log_softmax(0)[symbol]) for place, symbol in enumerate(ids))
    return nats / math.log(2) / count


def curve(*bits):
    return NoiseCurve("m", Noise.MIXED, (0.0, 0.1, 0.2), tuple((value,) for value in bits))


def cell(*bits):
    figures = dict.fromkeys(("flops", "symbols", "raw_bytes", "compressed_bytes", "seconds"), 0.0)
    names = dict.fromkeys(("cell", "condition", "fingerprint", "machine"), "x")
    counts = dict.fromkeys(("parameters", "backbone_parameters", "steps", "scored_bytes"), 1)
    return CellResult(
        **names, **figures, **counts, settings={}, raw_bpb=1.0, compressed_bpb=None, curve=(), noise=(curve(*bits),)
    )


def test_crossings_are_of_the_means_and_of_each_seed():
    (one,) = crossings(
        {"a": [cell(2.0, 2.0, 2.0), cell(3.0, 3.0, 3.0)], "b": [cell(1.0, 3.0, 3.0), cell(1.0, 1.0, 1.0)]}
    )
    assert one.conditions == ("a", "b")
    assert one.by_seed == (pytest.approx(0.05), None)
    # Means: 2.5 against 1, 2, 2.
    assert one.share is None
    (one,) = crossings({"a": [cell(2.0, 2.0, 2.0)], "none": [], "b": [cell(1.0, 1.5, 4.0)]})
    assert one.share == pytest.approx(0.12)


def test_the_report_has_table_picture_and_figures(folder, tmp_path):
    report = read_report(folder)
    write_report(report, tmp_path)
    assert "noise" in draw_report(report)
    assert (tmp_path / "noise.png").stat().st_size > 5000
    page = (tmp_path / "report.md").read_text()
    assert "## Noised text" in page and "| condition | noise | 0% | 30% |" in page
    told = json.loads((tmp_path / "report.json").read_text())["noise"]
    assert {(line["model"], line["kind"]) for line in told["curves"]} == {
        (name, kind) for name in ("bytes", "proxy", "tokenizer") for kind in ("delete", "swap")
    }
    line = next(line for line in told["curves"] if (line["model"], line["kind"]) == ("proxy", "delete"))
    cells = [json.loads((folder / f"cells/proxy-seed{seed}/result.json").read_text()) for seed in (0, 1)]
    means = [sum(result["noise"][0]["bits"][1]) / 2 for result in cells]
    assert line["bpb"][1] == pytest.approx(means)
