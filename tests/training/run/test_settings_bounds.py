"""Every number of a recipe is finite, within its bounds and of 64 bits; what cannot be is one sentence with the key."""

import math

import pytest
from pydantic import ValidationError

from proxybyte.errors import ProxyByteError
from proxybyte.training.experiments.schema import EvaluationPlan, MatchConfig
from proxybyte.training.run.assemble import model_source
from proxybyte.training.run.config import TrainConfig
from proxybyte.training.run.config_io import load_config, parse_config
from proxybyte.training.settings import flatten
from proxybyte.training.train import main

MINIMAL = {"output": "run", "data": "prepared", "model": {"preset": "tiny"}}
DEFAULTS = flatten(TrainConfig.model_validate(MINIMAL).model_dump())
NUMBERS = sorted(key for key, value in DEFAULTS.items() if type(value) in (int, float))
NUMBERS += ["plan.schedule.hand_off", "plan.schedule.decay", "seed", "plan.seed", "teacher.weight", "compute.processes"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("output: run\ndata: prepared\nmodel: {preset: tiny}\n")
    return path


def with_value(key, value):
    values = {name: dict(part) if isinstance(part, dict) else part for name, part in MINIMAL.items()}
    inner = values
    *sections, leaf = key.split(".")
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[leaf] = value
    if sections[:1] == ["teacher"]:
        values["teacher"]["model"] = "base"  # no teacher without one
    return values


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 2**63, 10**40, "nan", "inf", "1e400", str(2**80)])
def test_no_number_is_infinite_negative_or_beyond_64_bits(key, value):
    with pytest.raises(ProxyByteError) as error:
        config = parse_config(with_value(key, value), "here")
        # A real number may be large; whatever was taken is finite.
        taken = flatten(config.model_dump())[key]
        assert math.isfinite(taken)
        assert taken == float(value) > 1e18
        raise ProxyByteError(f"here: {key} taken")
    assert key in str(error.value).replace("suffix_rows: mix", "suffix_rows.mix")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.betas=[1.0, 0.9]", "key optimizer.betas.0: input should be less than 1"),
        ("optimizer.betas=[0.9, -0.1]", "key optimizer.betas.1: input should be greater than or equal to 0"),
        ("optimizer.betas=[0.9, .nan]", "optimizer.betas.1"),
        ("optimizer.eps=.inf", "optimizer.eps"),
        ("log.project=a/../../b", "key log.project: string should match pattern"),
        ("log.project=..", "log.project"),
        ("log.project=", "log.project"),
        ("model.backbone_config={model_type: llama, rms_norm_eps: .inf}", "model.backbone_config: should be a finite"),
        ("model.num_pred_heads=100000", "100000 heads, which look further ahead than a row of 2048 symbols"),
        ("seed=" + "9" * 5000, "is not valid YAML"),
        ("seed=" + "[" * 10000, "is not valid YAML: it is nested too deeply"),
        ("seed=2020-13-45", "the value is not valid YAML: month must be in 1..12"),
        ("plan.budget=1e30", "key plan.budget: input should be less than"),
        ('output="a\\0b"', "holds a NUL character"),
        ("output=~no-such-user/x", "names no home folder"),
    ],
)
def test_other_values_that_cannot_be_are_one_sentence(path, override, message):
    with pytest.raises(ProxyByteError) as error:
        load_config(path, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_recipe_nested_ten_thousand_deep_is_named(path):
    path.write_text("a: " + "{b: " * 10_000)
    with pytest.raises(ProxyByteError, match=r"recipe\.yaml is not valid YAML: it is nested too deeply"):
        load_config(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_experiment_plan_is_bounded_by_the_same_owner(value):
    for section, key in ((MatchConfig, "budget"), (EvaluationPlan, "points")):
        with pytest.raises(ValidationError):
            section.model_validate({key: value})
    with pytest.raises(ValidationError, match="64 bits"):
        EvaluationPlan.model_validate({"documents": 2**64})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 30},
        {"hidden_size": "wide"},
        {"hidden_size": -4},
        {"hidden_size": 10**12},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 3},
        {"num_hidden_layers": None},
        {"hidden_act": "nope"},
        {"head_dim": 0},
    ],
    ids=str,
)
def test_a_backbone_that_makes_no_model_is_one_sentence(recipe, change):
    backbone = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        **change,
    }
    config = load_config(recipe(model={"backbone_config": backbone}))
    with pytest.raises(ProxyByteError, match=r"model\.backbone_config") as error:
        model_source(config, 280).make(None)
    assert "\n" not in str(error.value)


def test_a_model_beyond_memory_is_refused_before_it_is_laid_out(recipe):
    backbone = {
        "model_type": "llama",
        "hidden_size": 65536,
        "intermediate_size": 262144,
        "num_hidden_layers": 200,
        "num_attention_heads": 64,
    }
    with pytest.raises(ProxyByteError, match=r"model\.backbone_config .* takes .* GB of memory and this machine has"):
        model_source(load_config(recipe(model={"backbone_config": backbone})), 280).make(None)


def test_flex_attention_on_a_cpu_is_refused(recipe, capsys):
    assert main(["--config", str(recipe()), "model.attention=flex_attention", "compute.device=cpu"]) == 2
    assert "flex_attention trains on accelerators" in capsys.readouterr().err
