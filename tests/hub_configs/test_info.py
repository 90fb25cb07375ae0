import json
import re

import pytest

from proxybyte.cli import main
from proxybyte.hub_configs import preset_names


def shown(capsys, *arguments: str) -> str:
    assert main(["info", *arguments]) == 0
    return capsys.readouterr().out


def test_without_a_name_every_preset_is_listed(capsys):
    assert [line.split()[0] for line in shown(capsys).splitlines()] == preset_names()


def test_a_preset_shows_what_it_holds_and_costs(capsys):
    text = shown(capsys, "small-llama", "--compressed", "4096", "--length", "1024")
    assert "9,917,760" in text and f"{4416 * 320:,} (tied)" in text
    assert "320 to 4415" in text and "64 to 319" in text
    # 6 FLOPs a weight, the head's among them, and 3 x 4 x width x (1024 + 1) / 2 in each of eight layers.
    weights = 8 * (4 * 320**2 + 3 * 320 * 864) + 4416 * 320
    assert f"{6 * weights + 8 * 12 * 320 * 1025 / 2:.4g}" in text
    assert re.search(r"optimizer\.lr +0\.002$", text, re.MULTILINE)
    assert re.search(r"learning_rate\.warmup +0\.04$", text, re.MULTILINE)


def test_heads_show_what_they_hold_and_cost(capsys):
    size = ("small-llama", "--compressed", "4096", "--length", "1024")
    text = shown(capsys, *size, "--heads", "3", "--raw-heads", "2")
    assert f"{2 * 4416 * 320 + 2 * 320 * 320:,}" in text
    weights = 8 * (4 * 320**2 + 3 * 320 * 864) + 4416 * 320
    attention = 8 * 4 * 320 * 1025 / 2
    assert f"{2 * weights + attention + 2 * 4 * 320 * 320:.4g}" in text
    assert f"{6 * (weights + 2 * 4416 * 320 + 2 * 320 * 320) + 3 * attention:.4g}" in text
    assert "drafts" not in shown(capsys, *size)


def test_a_folder_shows_its_own_model(capsys, tmp_path):
    from proxybyte import ProxyByteConfig

    shapes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    ProxyByteConfig(backbone_config={"model_type": "qwen3", **shapes}).save_pretrained(tmp_path)
    text = shown(capsys, str(tmp_path))
    assert "qwen3" in text and "1 x 32" in text and "none" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "it has no config.json"),
        ("{", "config.json is damaged"),
        (json.dumps({"model_type": "llama"}), "'llama' model"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(capsys, tmp_path, content, words):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert main(["info", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["tiny-lama"], "did you mean"), (["tiny-llama", "--compressed", "-1"], "at least 0"),
     (["tiny-llama", "--length", "0"], "at least 1"), (["tiny-llama", "--heads", "0"], "--heads must be at least 1")],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(capsys, arguments, words):
    assert main(["info", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
