"""Plans that truly run: nothing is lost, nothing runs twice."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from proxybyte import ProxyByteForCausalLM
from proxybyte.cli import main
from proxybyte.eval import Scoring, bits_per_byte, compressed_bits_per_byte
from proxybyte.training.compressors import load_compressor
from proxybyte.training.experiments.cell_run import final_documents
from proxybyte.training.experiments.grid import expand
from proxybyte.training.experiments.runner import RunOptions, run_plan
from proxybyte.training.experiments.schema import parse_plan
from proxybyte.training.run.config_io import load_config

CELLS = [f"{arm}-seed{seed}" for seed in (0, 1) for arm in ("bytes", "proxy", "tokenizer")]


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """The finished folder, free to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def result(folder: Path, cell: str) -> dict:
    return json.loads((folder / "cells" / cell / "result.json").read_text())


def test_every_cell_leaves_a_model_and_a_result(finished):
    assert sorted(path.name for path in (finished / "cells").iterdir()) == sorted(CELLS)
    for cell in CELLS:
        found = result(finished, cell)
        assert found["cell"] == cell
        assert len(found["curve"]) == 3
        assert found["curve"][-1]["step"] == found["steps"]
        assert found["curve"][-1]["bits_per_byte"] < found["curve"][0]["bits_per_byte"]
        assert not (finished / "cells" / cell / "run" / "checkpoints").exists()
    assert result(finished, "bytes-seed0")["compressed_bytes"] == 0
    assert result(finished, "tokenizer-seed0")["raw_bytes"] == 0
    views = {cell: (result(finished, cell)["raw_bpb"], result(finished, cell)["compressed_bpb"]) for cell in CELLS}
    assert views["bytes-seed0"][1] is None
    assert views["tokenizer-seed0"][0] is None
    assert None not in views["proxy-seed0"]
    assert views["proxy-seed0"] != views["proxy-seed1"]


def test_the_figures_are_those_of_the_saved_model(finished, plan_values):
    folder = finished / "cells" / "proxy-seed1" / "run"
    config = load_config(folder / "config.yaml")
    documents = final_documents(config.data, parse_plan(plan_values, "plan").evaluation)
    assert len(documents.texts) == 6
    assert all(len(text) <= 300 for text in documents.texts)
    compressor = load_compressor(folder / "compressor")
    assert [compressor.decode(code) for code in documents.codes] == documents.texts
    model = ProxyByteForCausalLM.from_pretrained(folder / "model")
    scoring, found = Scoring(window=63), result(finished, "proxy-seed1")
    sizes = [len(text) for text in documents.texts]
    assert found["raw_bpb"] == pytest.approx(bits_per_byte(model, documents.texts, scoring).bits_per_byte)
    compressed = compressed_bits_per_byte(model, documents.codes, sizes, scoring).bits_per_byte
    assert found["compressed_bpb"] == pytest.approx(compressed)
    assert found["scored_bytes"] == sum(sizes)


def test_a_model_of_bytes_alone_has_no_other_rows(finished):
    config = json.loads((finished / "cells" / "bytes-seed0" / "run" / "model" / "config.json").read_text())
    assert config["num_compressed_symbols"] == 0
    model = ProxyByteForCausalLM.from_pretrained(finished / "cells" / "bytes-seed0" / "run" / "model")
    assert model.get_input_embeddings().num_embeddings == 320


def test_a_finished_plan_run_again_changes_nothing(copy, plan_file, capsys):
    before = contents(copy / "cells")
    assert main(["experiment", "run", str(plan_file()), "--out", str(copy)]) == 0
    assert "6 cells finished" in capsys.readouterr().out
    assert contents(copy / "cells") == before


def test_a_lost_cell_runs_again_to_the_same_figures_and_the_others_stay(copy, make_plan):
    wanted = result(copy, "proxy-seed0")
    shutil.rmtree(copy / "cells" / "proxy-seed0")
    before = contents(copy / "cells")
    progress = run_plan(make_plan(), RunOptions(copy))
    assert sorted(progress.finished) == sorted(CELLS)
    after = contents(copy / "cells")
    assert {name: text for name, text in after.items() if not name.startswith("proxy-seed0")} == before
    found = result(copy, "proxy-seed0")
    assert {**found, "seconds": 0} == {**wanted, "seconds": 0}


def test_a_plan_that_grows_keeps_its_cells_and_adds_the_new_ones(copy, make_plan):
    before = contents(copy / "cells")
    progress = run_plan(make_plan(seeds=[0, 1, 7], arms={"tokenizer": {"models": "one"}}), RunOptions(copy))
    assert len(progress.finished) == 9
    after = contents(copy / "cells")
    assert before.items() <= after.items()
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {
        "bytes-seed7",
        "proxy-seed7",
        "tokenizer-seed7",
    }


def test_a_cell_of_another_plan_version_is_refused_and_left_alone(copy, plan_file, capsys):
    before = contents(copy / "cells")
    changed = plan_file(train={"optimizer": {"lr": 0.5}})
    assert main(["experiment", "run", str(changed), "--out", str(copy)]) == 2
    told = capsys.readouterr().err
    assert "bytes-seed0/result.json is of another version of the plan, with train.optimizer.lr=0.01 (now 0.5)" in told
    assert told.count("\n") == 1
    assert contents(copy / "cells") == before


def test_a_half_run_cell_of_another_plan_version_fails_alone(copy, plan_file, capsys):
    (copy / "cells" / "proxy-seed0" / "result.json").unlink()
    settings = copy / "cells" / "proxy-seed0" / "cell.json"
    settings.write_text(settings.read_text().replace('"match.budget": 400000000.0', '"match.budget": 5.0'))
    assert main(["experiment", "run", str(plan_file()), "--out", str(copy)]) == 2
    told = capsys.readouterr()
    assert "5 cells finished" in told.out
    assert "1 cell(s) failed, the first is proxy-seed0" in told.err
    assert "of another version of the plan, with match.budget=5.0 (now 400000000.0)" in told.err


def test_a_result_that_is_none_is_named(copy, plan_file, capsys):
    (copy / "cells" / "bytes-seed1" / "result.json").write_text('{"cell": "by')
    assert main(["experiment", "run", str(plan_file()), "--out", str(copy)]) == 2
    assert "bytes-seed1/result.json is no result of a cell" in capsys.readouterr().err


def test_a_missing_corpus_is_one_sentence(plan_file, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main(["experiment", "run", str(plan_file(corpus={"folder": str(tmp_path / "none")})), *out]) == 2
    assert "none holds no corpus (corpus.json is missing): make one with 'proxybyte corpus'" in capsys.readouterr().err
    sources = {"folder": None, "sources": [str(tmp_path / "nowhere")]}
    assert main(["experiment", "run", str(plan_file(corpus=sources)), *out]) == 2
    assert capsys.readouterr().err == f"proxybyte: corpus.sources names {tmp_path / 'nowhere'}, which does not exist\n"


def test_a_compressor_that_cannot_be_fitted_is_one_sentence(plan_file, tmp_path, capsys):
    wrong = plan_file(compressors={"bpe": {"options": {"symbols": 10}}}, seeds=[0])
    assert main(["experiment", "run", str(wrong), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "compressors/bpe could not be made: " in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbol": 300}, "unknown option symbol: the options are"),
        ({"symbols": "many"}, "option symbols cannot be 'many'"),
        ({"split": "words"}, "option split is 'words': give one of"),
    ],
)
def test_a_wrong_option_of_a_fit_is_one_sentence(plan_file, tmp_path, capsys, options, message):
    wrong = plan_file(compressors={"bpe": {"options": options}}, seeds=[0])
    assert main(["experiment", "run", str(wrong), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_the_corpus_is_collected_and_everything_shared_is_built_once(plan_values, tmp_path, make_plan):
    for package in range(4):
        (tmp_path / "text" / f"p{package}").mkdir(parents=True)
        for number in range(4):
            (tmp_path / "text" / f"p{package}" / f"{number}.py").write_text(f"x{number} = {package}\n" * 200)
    corpus = {"folder": None, "sources": [str(tmp_path / "text")], "validation_share": 0.3}
    plan = make_plan(corpus=corpus, seeds=[0], match={"budget": 4e7})
    progress = run_plan(plan, RunOptions(tmp_path / "out", workers=1))
    assert len(progress.finished) == 3
    shared = tmp_path / "out" / "shared"
    made = sorted(str(path.relative_to(shared)) for depth in ("*", "*/bpe*") for path in shared.glob(depth))
    wanted = ["compressors", "compressors/bpe", "corpus", "prepared", "prepared/bpe"]
    records = [f"{name}.settings.json" for name in ("compressors/bpe", "corpus", "prepared/bpe")]
    assert made == sorted(wanted + records)
    times = {path: path.stat().st_mtime_ns for path in shared.rglob("*") if path.is_file()}
    (tmp_path / "out" / "cells" / "bytes-seed0" / "result.json").unlink()
    run_plan(plan, RunOptions(tmp_path / "out", workers=1))
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*") if path.is_file()} == times


def test_an_interrupted_cell_goes_on_from_its_checkpoint(copy, plan_file, make_plan, server):
    """SIGTERM in a cell: exit code 0, a checkpoint, and afterwards the figures of an uninterrupted run."""
    changes = {"match": {"budget": 2.0e9}, "seeds": [0], "arms": {"bytes": {"kind": "bytes"}}}
    path, whole, parts = plan_file(**changes), copy / "whole", copy / "parts"
    for folder in (whole, parts):
        shutil.copytree(copy / "shared", folder / "shared")
    process = server.fork(["experiment", "run", path, "--out", parts])
    run = parts / "cells" / "bytes-seed0" / "run"
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/step-*[0-9]")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "stopped in bytes-seed0, which is saved" in told
    assert not (run.parent / "result.json").exists()
    assert not list((parts / "cells").glob(".*.lock"))
    plan = make_plan(**changes)
    for folder in (parts, whole):
        cell = expand(plan)[0]
        only = plan.model_copy(update={"arms": {"bytes": plan.arms["bytes"]}})
        assert run_plan(only, RunOptions(folder)).finished == [cell.name]
    assert {**result(parts, "bytes-seed0"), "seconds": 0} == {**result(whole, "bytes-seed0"), "seconds": 0}


@pytest.mark.slow
def test_ctrl_c_in_a_cell_ends_the_command_as_a_shell_counts_it(copy, plan_file, capsys):
    path = plan_file(match={"budget": 2.0e9}, seeds=[0], arms={"bytes": {"kind": "bytes"}})
    shutil.copytree(copy / "shared", copy / "stopped" / "shared")
    run = copy / "stopped" / "cells" / "bytes-seed0" / "run"

    def stop_it() -> None:
        while not list(run.glob("checkpoints/step-*[0-9]")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop_it, daemon=True).start()
    assert main(["experiment", "run", str(path), "--out", str(copy / "stopped")]) == 130
    assert "stopped in bytes-seed0, which is saved" in capsys.readouterr().out


def test_a_launcher_trains_the_same_cell_on_two_processes(copy, make_plan):
    wanted = result(copy, "proxy-seed0")
    shutil.rmtree(copy / "cells" / "proxy-seed0")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517", "-m")
    plan = make_plan(train={"batch": {"rows_per_device": 2}})
    assert "proxy-seed0" in run_plan(plan, RunOptions(copy, launcher)).finished
    found = result(copy, "proxy-seed0")
    assert (found["steps"], found["flops"]) == (wanted["steps"], wanted["flops"])
    assert found["raw_bpb"] == pytest.approx(wanted["raw_bpb"], rel=1e-4)


def test_a_launcher_that_is_not_there_is_named(copy, plan_file, capsys):
    (copy / "cells" / "proxy-seed0" / "result.json").unlink()
    assert main(["experiment", "run", str(plan_file()), "--out", str(copy), "--launch", "no-such-launcher -m"]) == 2
    assert "--launch: no-such-launcher cannot be run: No such file" in capsys.readouterr().err


def test_a_shipped_smoke_plan_runs_at_a_miniature_size(corpus, tmp_path, capsys):
    words = [
        "experiment",
        "run",
        "gzip_sentinels",
        "--size",
        "smoke",
        "--out",
        str(tmp_path),
        "--workers",
        "1",
        "--set",
    ]
    small = ["compressors.bpe.options={symbols: 280}", "match.budget=3e8", "train.plan.row_length=64"]
    assert main([*words, f"corpus={{folder: {corpus}}}", *small, "train.precision=float32"]) == 0
    assert "5 cells finished" in capsys.readouterr().out
    hidden = json.loads((tmp_path / "cells" / "gzip-plan.view_sentinels-false-seed0" / "result.json").read_text())
    assert hidden["compressed_bpb"] is None
    assert hidden["raw_bpb"] > 0
