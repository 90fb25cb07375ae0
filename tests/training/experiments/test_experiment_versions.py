"""Nothing made by one version of a plan, or of the package's defaults, is taken for that of another."""

import json
import shutil
from pathlib import Path

import pytest

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs import load_preset
from proxybyte.training.experiments.grid import Cell, expand
from proxybyte.training.experiments.results import claim_settings, load_result
from proxybyte.training.experiments.runner import RunOptions, run_plan
from proxybyte.training.experiments.schema import load_plan
from proxybyte.training.run.config import MAY_CHANGE_ON_RESUME, TrainConfig
from proxybyte.training.settings import flatten

DECAY = "train.optimizer.weight_decay"


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """The finished folder, free to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def cell(make_plan) -> Cell:
    """A proxy of the finished folder."""
    return next(cell for cell in expand(make_plan()) if cell.name == "proxy-seed0")


def change(path: Path, **changes: object) -> None:
    """Change keys of a recorded result's settings; ``None`` removes one."""
    values = json.loads(path.read_text())
    settings = {**values["settings"], **changes}
    values["settings"] = {key: value for key, value in settings.items() if value is not None}
    path.write_text(json.dumps(values))


def test_every_key_that_a_result_depends_on_is_recorded_with_its_value(cell):
    every = flatten({"train": cell.config.model_dump(mode="json")})
    missing = {key.removeprefix("train.") for key in every.keys() - cell.settings.values.keys()}
    free = {"plan.budget", "plan.budget_unit"}
    assert free < missing
    assert all(key.startswith(MAY_CHANGE_ON_RESUME) for key in missing - free)
    assert {
        key: every[key] for key in every.keys() & cell.settings.values.keys()
    }.items() <= cell.settings.values.items()
    assert cell.settings.values[DECAY] == TrainConfig.model_fields["optimizer"].default.weight_decay
    assert {"corpus.validation_share", "compressor.compile", "match.budget"} < cell.settings.values.keys()


def test_a_preset_is_recorded_with_what_it_holds():
    settings = expand(load_plan("first", "hour"))[0].settings
    held = flatten({"preset": load_preset("tiny-llama").backbone_config})
    assert held.items() <= settings.values.items()
    assert held.keys().isdisjoint(settings.at_default)


def test_a_default_that_changed_since_is_noticed(copy, plan_file, capsys):
    path = copy / "cells" / "proxy-seed0" / "result.json"
    change(path, **{DECAY: 0.05})
    before = path.read_bytes()
    assert main(["experiment", "run", str(plan_file()), "--out", str(copy)]) == 2
    assert capsys.readouterr().err == (
        f"proxybyte: {path} is of another version of the plan, with {DECAY}=0.05 (now 0.1 by default): "
        "restore this in the plan, or choose another folder with --out\n"
    )
    assert main(["experiment", "report", str(copy)]) == 2
    assert path.read_bytes() == before


def test_restoring_it_in_the_plan_takes_the_cells_back(copy, make_plan):
    for path in copy.glob("cells/*/result.json"):
        change(path, **{DECAY: 0.05})
    plan = make_plan(train={"optimizer": {"weight_decay": 0.05}})
    assert len(run_plan(plan, RunOptions(copy)).finished) == 6


def test_a_key_that_did_not_exist_then_may_be_missing_at_its_default_only(copy, cell, make_plan):
    folder = copy / "cells" / cell.name
    change(folder / "result.json", **{DECAY: None})
    assert load_result(folder, cell) is not None
    chosen = next(c for c in expand(make_plan(train={"optimizer": {"weight_decay": 0.2}})) if c.name == cell.name)
    with pytest.raises(ProxyByteError, match=r"weight_decay=null \(now 0.2\)"):
        load_result(folder, chosen)


@pytest.mark.parametrize("text", ["", '{"kind": "by', "[1]"])
def test_a_record_that_is_none_is_named_and_nothing_is_overwritten(tmp_path, cell, text):
    (tmp_path / "cell.json").write_text(text)
    with pytest.raises(ProxyByteError, match=r"cell.json cannot be read .*: remove .* to run the cell again") as error:
        claim_settings(tmp_path, cell)
    assert "\n" not in str(error.value)
    assert (tmp_path / "cell.json").read_text() == text


def test_shared_data_of_another_plan_version_are_not_used(copy, plan_file, capsys):
    """No cell with the compressor is finished: only the record beside the data can tell."""
    shutil.rmtree(copy / "cells")
    before = {path: path.stat().st_mtime_ns for path in (copy / "shared").rglob("*") if path.is_file()}
    assert (
        main(
            [
                "experiment",
                "run",
                str(plan_file(compressors={"bpe": {"options": {"symbols": 290}}})),
                "--out",
                str(copy),
            ]
        )
        == 2
    )
    told = capsys.readouterr().err
    assert (
        "prepared/bpe.settings.json is of another version of the plan, with compressor.options.symbols=280 (now 290)"
        in told
    )
    assert {path: path.stat().st_mtime_ns for path in (copy / "shared").rglob("*") if path.is_file()} == before
