"""Plans: what is refused and how it is said, what the shipped ones hold, and which cells they make."""

from pathlib import Path

import pytest
import yaml

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.training.experiments.grid import expand
from proxybyte.training.experiments.runner import choose_cells
from proxybyte.training.experiments.schema import (
    ArmConfig,
    ArmKind,
    ExperimentPlan,
    MatchBy,
    PairMode,
    lay_over,
    load_plan,
    nested,
    plan_names,
    size_names,
)
from proxybyte.training.run.config import TrainConfig

STUDIES = {
    "granularity": 7,
    "raw_share": 6,
    "pairing": 6,
    "gzip_sentinels": 5,
    "masking": 4,
    "raw_exposure": 7,
    "interfaces": 8,
    "scaling": 6,
    "levers": 276,
    "moves": 11,
    "noise": 3,
    "embeddings": 4,
    "first": 18,
}
"""Cells of each shipped plan in its smoke size."""


def test_every_published_study_has_a_plan():
    assert plan_names() == sorted(STUDIES)
    assert size_names() == ["gpu", "hour", "narrow", "smoke"]


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("size", ["smoke", "gpu", "hour"])
def test_every_cell_of_a_shipped_plan_is_a_valid_run(name, size):
    cells = expand(load_plan(name, size))
    assert all(type(cell.config) is TrainConfig for cell in cells)
    assert len({cell.name for cell in cells}) == len(cells)
    assert len({cell.settings.fingerprint for cell in cells}) == len(cells)
    assert cells[0].kind is ArmKind.BYTES
    if size == "smoke":
        assert len(cells) == STUDIES[name]


def test_a_plan_is_laid_over_a_size_and_overrides_over_both(tmp_path):
    plan = load_plan("raw_exposure", "smoke", ["match.budget=7e4", "seeds=[3,4]"])
    assert (plan.match.by, plan.match.budget, plan.seeds) == ("raw_data", 7e4, (3, 4))
    assert load_plan("raw_exposure", "smoke").match.budget == 1.5e5
    assert set(plan.compressors) == {"bpe", "gzip"}
    (tmp_path / "own.yaml").write_text("seeds: [9]\n")
    with pytest.raises(ProxyByteError, match="key corpus is missing"):
        load_plan("raw_share", tmp_path / "own.yaml")
    with pytest.raises(ProxyByteError, match=r"corpus is missing: .* or add --size \(gpu, hour, narrow, smoke\)$"):
        load_plan("raw_share")


def test_the_grid_is_every_combination_seed_by_seed(make_plan):
    proxy = {"raw_share": [0.5, 0.1], "pairing": ["none", "always"], "vary": {"optimizer.lr": [0.01, 0.02]}}
    plan = make_plan(arms={"proxy": proxy})
    cells = expand(plan)
    assert len(cells) == 2 * (1 + 8 + 1)
    assert [cell.seed for cell in cells] == [0] * 10 + [1] * 10
    assert cells[1].name == "proxy-raw_share-0.5-none-optimizer.lr-0.01-seed0"
    schedules = {cell.name: cell.config.plan.schedule for cell in cells}
    always = schedules["proxy-raw_share-0.1-always-optimizer.lr-0.02-seed1"]
    assert (always.rate, always.pairing, always.warmup_pairing) == (0.9, "random", "random")
    assert (schedules["bytes-seed0"].rate, schedules["bytes-seed0"].warmup) == (0.0, 0.0)
    assert not schedules["bytes-seed0"].shows_compressed
    assert (schedules["tokenizer-seed0"].rate, schedules["tokenizer-seed0"].warmup) == (1.0, 0.0)


def test_models_are_an_axis_and_may_have_a_budget_of_their_own(make_plan, plan_values):
    small = plan_values["models"]["one"]["backbone_config"]
    two = {"backbone_config": {**small, "hidden_size": 64}, "budget": 9.0e8, "set": {"optimizer.lr": 1e-3}}
    cells = expand(make_plan(models={"two": two}, seeds=[0]))
    assert [cell.name for cell in cells][:3] == ["bytes-one-seed0", "bytes-two-seed0", "proxy-one-seed0"]
    assert [(cell.budget, cell.config.optimizer.lr) for cell in cells][:2] == [(4e8, 1e-2), (9e8, 1e-3)]


def test_a_fingerprint_tells_what_is_learnt_and_not_how_it_is_computed(make_plan):
    def prints(**changes):
        return {cell.name: cell.settings.fingerprint for cell in expand(make_plan(**changes))}

    same, plain = prints(train={"compute": {"compile": True}, "log": {"every": 3}}, title="other"), prints()
    assert same == plain
    changed = prints(train={"optimizer": {"lr": 2e-2}})
    assert all(changed[name] != plain[name] for name in plain)
    other = prints(compressors={"bpe": {"options": {"symbols": 300}}})
    assert other["bytes-seed0"] == plain["bytes-seed0"]
    assert other["proxy-seed0"] != plain["proxy-seed0"]
    assert prints(seeds=[0, 1, 2]).items() > plain.items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [1]}, r"unknown key sedes: did you mean seeds\?"),
        (
            {"arms": {"proxy": {"raw_shares": [0.1]}}},
            r"unknown key arms.proxy.raw_shares: did you mean arms.proxy.raw_share\?",
        ),
        ({"match": {"budgets": 1}}, r"unknown key match.budgets: did you mean match.budget\?"),
        ({"compressors": {"bpe": {"option": {}}}}, r"did you mean compressors.bpe.options\?"),
        ({"train": {"optimizer": {"speed": 1}}}, r"arm bytes: unknown key optimizer.speed"),
        (
            {"arms": {"proxy": {"set": {"plan.row_lenght": 9}}}},
            r"arm proxy: .*plan.row_lenght: did you mean plan.row_length",
        ),
        ({"arms": {"proxy": {"compressor": "bpee"}}}, r"arm proxy names the compressor bpee, but there are bpe"),
        ({"arms": {"proxy": {"raw_share": []}}}, r"raw_share is an empty list"),
        ({"arms": {"proxy": {"raw_share": 1.5}}}, r"shares lie above 0 and up to 1"),
        ({"arms": {"bytes": {"compressor": "bpe"}}}, r"an arm of kind bytes has no compressor"),
        ({"arms": {"tokenizer": {"models": "large"}}}, r"names the model large, but there are one"),
        ({"baseline": "byte"}, r"baseline byte is no arm: there are bytes, proxy, tokenizer"),
        ({"seeds": []}, r"key seeds is empty"),
        ({"seeds": 3}, r"key seeds: input should be a list, not 3"),
        ({"seeds": [1, 1]}, r"hold one twice"),
        (
            {"match": {"by": "time"}},
            r"key match.by: input should be 'flops', 'symbols', 'data' or 'raw_data', not 'time'",
        ),
        ({"corpus": {"folder": None}}, r"corpus: give folder, sources or python_packages"),
    ],
)
def test_bad_plans_are_refused_in_one_sentence(make_plan, changes, message):
    with pytest.raises(ProxyByteError, match=message) as error:
        expand(make_plan(**changes))
    assert "\n" not in str(error.value)


def test_two_cells_of_one_name_are_refused(make_plan):
    plain = {"kind": "compressed", "compressor": "bpe"}
    several = {**plain, "vary": {"optimizer.lr": [0.5, 0.25]}}
    with pytest.raises(ProxyByteError, match=r"two cells are called a-optimizer\.lr-0\.5-seed0"):
        expand(make_plan(arms={"a": several, "a-optimizer.lr-0.5": plain}))


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
def test_an_empty_plan_is_refused(tmp_path, capsys, text):
    path = tmp_path / "empty.yaml"
    path.write_text(text)
    assert main(["experiment", "run", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"proxybyte: {path} is empty: a plan needs title, corpus, models, arms and match\n"
    )


def test_an_empty_list_of_arms_is_refused(plan_values, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({**plan_values, "arms": {}}))
    with pytest.raises(ProxyByteError, match="key arms is empty: it needs at least one"):
        load_plan(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2]", "must hold keys and values"), ("a: [", "is not valid YAML"), (b"\xff\xfe\xff", "cannot be read")],
)
def test_files_that_are_no_plan_are_refused(tmp_path, text, message):
    path = tmp_path / "plan.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProxyByteError, match=message):
        load_plan(path)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ProxyByteError, match="no plan raw-share: give a YAML file, or one of embeddings, first, gran"):
        load_plan("raw-share")
    with pytest.raises(ProxyByteError, match="no size tiny: give a YAML file, or one of gpu, hour, narrow, smoke"):
        load_plan("raw_share", "tiny")
    with pytest.raises(ProxyByteError, match="'seeds' is not of the form"):
        load_plan("raw_share", "smoke", ["seeds"])


def test_sections_are_merged_and_all_else_replaced():
    assert lay_over({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}, "d": 3}) == {"a": {"b": 1, "c": [2]}, "d": 3}
    assert nested({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


def test_a_choice_replaces_the_one_that_a_size_made(tmp_path):
    """An own plan that names a finished compressor, model and corpus where the size fits, builds and collects them."""
    path = tmp_path / "own.yaml"
    model = {"preset": "tiny-llama"}
    values = {
        "title": "own",
        "corpus": {"folder": "corpus"},
        "compressors": {"bpe": {"use": "my-bpe"}, "codebook": {"use": "my-codebook"}},
        "models": {"smoke": model},
        "arms": {"proxy": {"kind": "proxy", "compressor": ["bpe", "codebook"]}},
    }
    path.write_text(yaml.safe_dump(values))
    plan = load_plan(path, "smoke")
    for name in ("bpe", "codebook"):
        found = plan.compressors[name]
        assert (found.use, found.fit, found.options, found.compile) == (f"my-{name}", None, {}, None)
    assert plan.models["smoke"].backbone_config is None
    assert not plan.corpus.python_packages
    assert load_plan(path, "smoke", ["compressors.bpe={fit: bpe}"]).compressors["bpe"].use is None
    path.write_text(yaml.safe_dump({**values, "compressors": {"bpe": {"use": "a", "fit": "bpe"}}}))
    with pytest.raises(ProxyByteError, match="exactly one of use and fit"):
        load_plan(path, "smoke")


def test_cells_are_shared_out_each_once(make_plan):
    cells = expand(make_plan())
    shares = [choose_cells(cells, f"{share}/4") for share in (1, 2, 3, 4)]
    assert sorted(cell.name for share in shares for cell in share) == sorted(cell.name for cell in cells)
    assert [cell.name for cell in choose_cells(cells, "2/4")] == [cells[1].name, cells[5].name]
    assert choose_cells(cells, "proxy-seed1") == [cell for cell in cells if cell.name == "proxy-seed1"]
    assert choose_cells(cells, None) == cells
    for wrong in ("0/4", "5/4", "1/0", "x", "1/", "-1/2"):
        with pytest.raises(ProxyByteError, match="give i/n with i from 1 to n"):
            choose_cells(cells, wrong)


def test_the_page_names_every_plan_size_and_key():
    page = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()
    for name in [
        *plan_names(),
        *size_names(),
        *ExperimentPlan.model_fields,
        *ArmConfig.model_fields,
        *PairMode,
        *MatchBy,
    ]:
        assert name in page, name


def test_help_names_every_plan_and_size(capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "run", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert " ".join(plan_names()) in told
    assert all(name in told for name in size_names())


def test_the_cells_can_be_listed_without_running_any(plan_file, tmp_path, capsys):
    assert main(["experiment", "run", str(plan_file()), "--list", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "proxy-seed1  proxy" in told
    assert "6 cells, each of 4e+08 (flops)" in told
    assert not (tmp_path / "out").exists()
