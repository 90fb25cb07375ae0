import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.errors import ProxyByteError
from proxybyte.training.run.config import MAY_CHANGE_ON_RESUME, TrainConfig
from proxybyte.training.run.config_io import CONFIG_FILE, check_resumable, known_keys, load_config, save_config


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("output: run\ndata: prepared\nmodel: {preset: tiny}\n")
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "unknown key optimizer.lrr: did you mean optimizer.lr?"),
        ("lr=1", "unknown key lr: did you mean optimizer.lr?"),
        ("optimzer.lr=1", "unknown key optimzer: did you mean optimizer?"),
        ("plan.schedule.rat=1", "unknown key plan.schedule.rat: did you mean plan.schedule.rate?"),
        ("optimizer.learning_rate=1", "unknown key optimizer.learning_rate: did you mean optimizer.lr?"),
        ("optimizer.gradient_norm=1", "unknown key optimizer.gradient_norm: did you mean optimizer.clip?"),
        ("plan.symbols_in_a_row=1", "unknown key plan.symbols_in_a_row: did you mean plan.row_length?"),
        (
            "learning_rate=1",
            "is a section of shape, warmup, decay, final, rewarm, not a value: did you mean optimizer.lr?",
        ),
        ("plan=1", "key plan is a section of seed, row_length"),
        ("plan.schedule=1", "key plan.schedule is a section of rate, pairing"),
        ("optimizer.lr=fast", "key optimizer.lr: input should be a valid number"),
        ("batch.rows_per_step=1.5", "key batch.rows_per_step: input should be a valid integer"),
        ("learning_rate.shape=cos", "'cosine', 'wsd' or 'constant', not 'cos'"),
        ("output=", "key output: should be a path, not None"),
        ("seed.a=1", "key seed: input should be a valid integer"),
        ("model.checkpoint=x", "model: give exactly one of preset, backbone_config and checkpoint"),
        ("batch.rows_per_step=12", "batch.rows_per_step (12) must be a multiple of batch.rows_per_device (8)"),
        ("nonsense", "override 'nonsense' is not of the form key.sub=value"),
        ("output.a=1", "override 'output.a=1': output is a single value, not a section"),
        ("seed=[", "the value is not valid YAML"),
    ],
)
def test_a_wrong_override_is_one_sentence_that_names_key_and_fix(path, override, message):
    with pytest.raises(ProxyByteError) as error:
        load_config(path, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_overrides_reach_nested_keys_and_leave_the_rest(path):
    config = load_config(path, ["optimizer.lr=3e-4", "plan.schedule.rate=0.5", "log.trackers=[]"])
    assert (config.optimizer.lr, config.plan.schedule.rate, config.log.trackers) == (3e-4, 0.5, ())
    assert config.optimizer.weight_decay == TrainConfig.model_fields["optimizer"].default.weight_decay


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "just text"])
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ProxyByteError, match=r"bad\.yaml"):
        load_config(path)


def test_an_absent_recipe_names_the_shipped_ones():
    with pytest.raises(ProxyByteError, match="quickstart"):
        load_config("no-such-recipe")


@pytest.mark.parametrize("name", ["quickstart", "100m-gpu", "multibyte-heads", "proxy"])
def test_shipped_recipes_are_valid(name):
    assert load_config(name).plan.budget > 0


def test_saved_config_reads_back_equal(path, tmp_path):
    config = load_config(path, ["learning_rate.shape=wsd", "optimizer.betas=[0.8, 0.9]"])
    save_config(config, tmp_path)
    assert load_config(tmp_path / CONFIG_FILE) == config


@given(st.sampled_from([key for key in known_keys() if "." in key]), st.randoms(use_true_random=False))
def test_a_key_with_one_letter_lost_is_suggested_whole(key, rng):
    leaf = key.rpartition(".")[2]
    where = rng.randrange(len(leaf))
    wrong = key.removesuffix(leaf) + leaf[:where] + leaf[where + 1 :]
    values = yaml.safe_load("{output: run, data: prepared, model: {preset: tiny}}")
    inner = values
    for section in wrong.split(".")[:-1]:
        inner = inner.setdefault(section, {})
    inner[wrong.rpartition(".")[2]] = 1
    from proxybyte.training.run.config_io import parse_config

    if wrong in known_keys() or len(leaf) < 4:
        return
    with pytest.raises(ProxyByteError, match="did you mean"):
        parse_config(values, "here")


def test_resuming_under_a_changed_key_is_refused_and_named(path, tmp_path):
    saved = load_config(path).model_dump(mode="json")
    changed = load_config(path, ["optimizer.lr=0.5", "plan.seed=7", "log.every=3"])
    with pytest.raises(ProxyByteError) as error:
        check_resumable(changed, saved, tmp_path)
    assert "optimizer.lr=0.001 (now 0.5)" in str(error.value)
    assert "plan.seed=0 (now 7)" in str(error.value)
    assert "log.every" not in str(error.value)


def test_a_run_of_an_earlier_version_goes_on_where_later_keys_are_at_their_defaults(path, tmp_path):
    saved = load_config(path).model_dump(mode="json")
    del saved["levers"], saved["optimizer"]["kind"], saved["learning_rate"]["rewarm"]
    check_resumable(load_config(path), saved, tmp_path)
    with pytest.raises(ProxyByteError, match=r"with levers\.spelled_rows=null \(now true\): restore"):
        check_resumable(load_config(path, ["levers.spelled_rows=true"]), saved, tmp_path)


@pytest.mark.parametrize(
    "override", ["log.every=3", "compute.compile=true", "batch.rows_per_device=4", "checkpoint.keep=9", "output=other"]
)
def test_what_does_not_change_the_learning_may_change_on_resume(path, tmp_path, override):
    check_resumable(load_config(path, [override]), load_config(path).model_dump(mode="json"), tmp_path)


def test_what_may_change_on_resume_exists():
    keys = known_keys()
    assert all(free.removesuffix(".") in keys for free in MAY_CHANGE_ON_RESUME)


def test_the_reference_in_the_docs_names_every_key():
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    named = set(re.findall(r"`([a-z_.]+)`", page.partition("## Config reference")[2]))
    sections = {key.rpartition(".")[0] for key in known_keys()}
    leaves = {key: f".{key.rpartition('.')[2]}" for key in known_keys() if key not in sections}
    missing = [key for key, leaf in leaves.items() if not {key, leaf} & named]
    assert missing == []
