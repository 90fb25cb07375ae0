"""A token is in no message, no log and no file, wherever a person or a library puts it."""

import logging
from pathlib import Path

import pytest
from soak_inputs import COMMANDS

from proxybyte.checksums import read_record, verify_folder
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.privacy import without_secrets

TOKEN = "hf_" + "Zq9" * 12
OTHER = "wandb-secret-0123456789"


@pytest.fixture
def tokens(monkeypatch) -> list[str]:
    """In the environment, as people have them."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", OTHER)
    return [TOKEN, OTHER]


def files_with(folder: Path, words: list[str]) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(word.encode() in path.read_bytes() for word in words)
    ]


def test_no_command_writes_or_says_a_token(inputs, tokens, tmp_path, capfd):
    for command in (*COMMANDS, "train", "experiment run", "compressor report", "eval code"):
        assert main(inputs.words(command, tmp_path / command.replace(" ", "-"))) == 0, command
    assert main(["doctor"]) in (0, 2)
    out, err = capfd.readouterr()
    assert not [word for word in tokens if word in out + err]
    assert not files_with(tmp_path, tokens)


@pytest.mark.parametrize(
    "words",
    [
        ["corpus", f"https://user:{TOKEN}@example.invalid/a.jsonl", "--out", "out"],
        ["corpus", "--dataset", f"https://user:p4ssw0rd@example.invalid/{TOKEN}", "--out", "out"],
        ["export", f"{TOKEN}/model", "--format", "full", "--out", "out"],
        ["train", "--config", f"./{TOKEN}.yaml"],
        ["train", "--config", "quickstart", f"log.project={TOKEN}", f"{TOKEN}=1"],
        ["generate", "https://user:p4ssw0rd@example.invalid/m", "--prompt", "x"],
        ["byteify", f"./{TOKEN}", "--out", "out"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("debug", [False, True])
def test_what_is_refused_does_not_repeat_a_token(words, debug, tokens, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main([*words, *(["--debug"] if debug else [])]) == 2
    out, err = capfd.readouterr()
    assert "proxybyte: " in err
    for word in (*tokens, "p4ssw0rd"):
        assert word not in out + err
    assert not files_with(tmp_path, tokens)


def test_what_the_parser_does_not_understand_is_repeated_without_a_token(tokens, capfd):
    with pytest.raises(SystemExit):
        main(["doctor", f"--{TOKEN}"])
    out, err = capfd.readouterr()
    assert "unrecognized" in err
    assert TOKEN not in out + err


def test_the_log_and_what_nobody_foresaw_hold_none(inputs, tokens, tmp_path, capfd, monkeypatch):
    def fails(*_):
        logging.getLogger("some library").warning("GET https://x.invalid Authorization: Bearer %s", TOKEN)
        raise RuntimeError(f"the server does not know {TOKEN}, nor {OTHER}")

    monkeypatch.setattr("proxybyte.training.prepare.run.publish_prepared", fails)
    assert main([*inputs.words("prepare", tmp_path / "out"), "--debug"]) == 70
    out, err = capfd.readouterr()
    assert "the server does not know hf_Zq9..., nor ..." in err or "the server does not know ..., nor ..." in err
    assert not [word for word in tokens if word in out + err]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"a {TOKEN} b", "a hf_Zq9... b"),
        ("s3://key:secret@host/x", "s3://...@host/x"),
        ("https://me@host/x and C:\\a: b@c", "https://me@host/x and C:\\a: b@c"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ..."),
        ("nothing: to hide, at 12:30 http://host:80/a", "nothing: to hide, at 12:30 http://host:80/a"),
        ("caf\udce9", "caf\udce9"),
    ],
)
def test_what_is_taken_out_of_a_text(text, shown, monkeypatch):
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert without_secrets(text) == shown


@pytest.mark.parametrize("name", ["../victim", "/etc/passwd", "a/../../victim", ""])
def test_a_record_that_names_what_lies_outside_is_refused_and_nothing_there_is_touched(name, inputs, tmp_path, capsys):
    """An earlier output is removed by the names in its record, which may have been written by anybody."""
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_text("of another")
    assert main(inputs.words("export", out)) == 0
    sums = out / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  {name}\n")
    for refuses in (read_record, verify_folder):
        with pytest.raises(ProxyByteError, match="lies outside its folder"):
            refuses(out)
    assert main([*inputs.words("export", out, other=True), "--force"]) == 2
    assert "SHA256SUMS" in capsys.readouterr().err
    assert victim.read_text() == "of another"
    assert (out / "config.json").exists()


def test_an_index_of_weights_that_leads_outside_is_refused_by_name(inputs, tmp_path, capsys):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(inputs.folder / "run" / "model", model)
    (model / "SHA256SUMS").unlink()
    (model / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (model / "model.safetensors.index.json").write_text(
        '{"metadata": {}, "weight_map": {"a": "../elsewhere.safetensors"}}'
    )
    assert main(["export", str(model), "--format", "native", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "model.safetensors.index.json names '../elsewhere.safetensors'" in said


CODE = "from pathlib import Path\nPath({canary!r}).touch()\n"


def test_code_beside_a_model_is_not_run(inputs, tmp_path, capsysbinary):
    """Neither by auto_map nor as generate's own; a kind of model that needs its code is refused."""
    import json
    import shutil

    canary = tmp_path / "canary"
    model = tmp_path / "model"
    assert main(inputs.words("export", model)) == 0
    (model / "SHA256SUMS").unlink()
    code = CODE.format(canary=str(canary))
    for name in ("evil.py", "generate.py", "custom_generate/generate.py"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(code + "class Evil: pass\ndef generate(*_, **__): pass\n")
    config = json.loads((model / "config.json").read_text())
    evil = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
    for kind in (config["model_type"], "evil"):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (model / "config.json").write_text(json.dumps(config | {"auto_map": evil, "model_type": kind}))
        known = kind != "evil"
        expected = 0 if known else 2
        assert main(["generate", str(model), "--prompt", "a", "--max-new-bytes", "2"]) == expected
        assert main(["info", str(model)]) == expected
        assert main(["eval", "bpb", str(model), "--data", str(inputs.folder / "corpus"), "--limit", "1"]) == expected
        assert main(["byteify", str(model), "--out", str(tmp_path / "out")]) == expected
        assert b"Traceback" not in capsysbinary.readouterr().err
        assert not canary.exists()


def test_remote_code_is_run_by_flag_and_pinned_revision_alone(monkeypatch):
    from proxybyte.model_loading import check_remote_code

    for revision in (None, "main", "v1", "abc", "A" * 40):
        with pytest.raises(ProxyByteError, match="name the commit"):
            check_remote_code("owner/model", revision)
    check_remote_code("owner/model", "0123456789abcdef0123456789abcdef01234567")


def test_lm_eval_takes_remote_code_of_the_hub_by_its_commit_alone():
    lm_eval = pytest.importorskip("lm_eval.api.registry")
    import proxybyte.eval.lm_eval_model  # noqa: F401 (registers it)

    with pytest.raises(ProxyByteError, match="name the commit"):
        lm_eval.get_model("proxybyte")(pretrained="owner/model", trust_remote_code=True)
