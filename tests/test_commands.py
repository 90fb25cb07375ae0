"""All commands alike: examples that parse, help and refusals that wait for no library they do not need."""

import re
import shlex
import subprocess
import sys
from importlib.metadata import requires

import pytest

from proxybyte.cli import build_parser, load_commands, main
from proxybyte.training.commands import doctor
from proxybyte.training.compressors import FAMILIES

COMMANDS = load_commands()
UNSAFE = ["--confirm-run-unsafe-code", "--weak-sandbox"]
REFUSED = {
    "info": (["info", "absent"], "there is no preset"),
    "info of presets": (["info"], ""),
    "train, unknown key": (["train", "--config", "quickstart", "optimizer.foo=3"], "unknown key optimizer.foo"),
    "train, unknown recipe": (["train", "--config", "absent"], "no recipe absent"),
    "train, wrong option": (["train", "--confg", "quickstart"], "--config"),
    "generate": (["generate", "absent", "--prompt", "a"], "absent"),
    "generate, wrong number": (["generate", "absent", "--max-new-bytes", "-3"], "--max-new-bytes"),
    "export": (["export", "absent", "--format", "full", "--out", "new"], "absent"),
    "demo": (["demo", "absent"], "absent is no folder"),
    "demo, port": (["demo", "absent", "--port", "0"], "--port must be at least 1"),
    "demo, space": (["demo", "absent", "--export-space", "new"], "absent is no folder"),
    "report": (["report", "absent"], "no finished run"),
    "experiment run": (["experiment", "run", "absent"], "no plan absent"),
    "experiment list": (["experiment", "run", "first", "--size", "smoke", "--list"], ""),
    "experiment report": (["experiment", "report", "absent"], "no experiment"),
    "corpus": (["corpus", "absent", "--out", "new"], "absent does not exist"),
    "prepare": (["prepare", "absent", "--compressor", "gzip", "--out", "new"], "no corpus folder"),
    "eval code, no consent": (["eval", "code", "absent", "--output", "new"], "--confirm-run-unsafe-code"),
    "compressor report": (["compressor", "report", "absent", "--corpus", "absent"], "no compressor 'absent'"),
    "compile, picture": (["compressor", "compile", "absent", "--out", "new", "--picture", "a.txt"], ".png or .svg"),
    "eval bpb": (["eval", "bpb", "absent", "--data", "absent"], "absent is no folder"),
    "eval bpb, text": (["eval", "bpb", "model", "--data", "absent.txt"], "absent.txt"),
    "eval transfer": (["eval", "transfer", "absent", "--data", "absent"], "absent is no folder"),
    "eval transfer, text": (["eval", "transfer", "model", "--data", "absent.txt"], "absent.txt"),
    "eval code": (["eval", "code", "absent", "--output", "new", "--generate-only"], "absent is no folder"),
    "eval code, wall": (["eval", "code", "absent", "--output", "new", *UNSAFE], "absent is no folder"),
    "eval robustness": (["eval", "robustness", "absent", "--output", "new", *UNSAFE], "absent is no folder"),
    "adapter merge": (["adapter", "merge", "absent", "adapter", "--out", "new"], "absent is no folder"),
    "adapter graft": (
        ["adapter", "graft", "absent", "--base", "b", "--instruct", "i", "--out", "new"],
        "absent is no folder",
    ),
    "eval noise": (["eval", "noise", "absent", "--data", "absent", "--out", "new"], "absent is no folder"),
    "adapter merge, adapter": (["adapter", "merge", "model", "absent", "--out", "new"], "the folder of an adapter"),
    "byteify": (["byteify", "./absent", "--out", "new"], "no such file or folder"),
    "byteify, empty": (["byteify", "empty", "--out", "new"], "neither config.json nor a GGUF file"),
    "convert evabyte": (["convert", "evabyte", "absent", "--out", "new"], "the folder of a checkpoint"),
    "convert evabyte, back": (["convert", "evabyte", "empty", "--out", "new", "--back"], "the folder of a checkpoint"),
    "compile": (["compressor", "compile", "absent", "--out", "new"], "no compressor 'absent'"),
    "compile, empty": (["compressor", "compile", "empty", "--out", "new"], "holds neither compressor.json"),
    "train, data": (["train", "--config", "quickstart", "data=absent", "output=new"], "no prepared split at absent"),
    "train, dry": (["train", "--config", "quickstart", "data=absent", "output=new", "--dry-run"], "no prepared split"),
    "train, checkpoint": (
        ["train", "--config", "byteify-lora", "data=prepared", "output=new", "model.checkpoint=absent"],
        "absent is no folder",
    ),
    "doctor": (["doctor", "--no-torch"], ""),
}
HEAVY = ("torch", "transformers", "datasets", "matplotlib", "lm_eval", "peft", "accelerate")
COUNTED = """
import contextlib, io, json, sys
from proxybyte.cli import main
for name, words in json.loads(sys.argv[1]).items():
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    loaded = [module for module in json.loads(sys.argv[2]) if module in sys.modules]
    print(json.dumps([name, code, said.getvalue(), loaded]))
"""


def examples() -> list[tuple[str, str]]:
    """Command and line, of every line of an epilog that is a command line of ours."""
    texts = {name: command.examples for name, command in COMMANDS.items()}
    texts |= {
        f"compressor.fit {name}": family.load_fitter().examples for name, family in FAMILIES.items() if family.fitter
    }
    return [
        (name, line)
        for name, text in texts.items()
        for line in map(str.strip, text.splitlines())
        if "proxybyte" in line
    ]


def words_of(line: str) -> list[str]:
    """What stands after ``proxybyte`` (alone, behind a pipe, a launcher or a variable), up to a redirection."""
    words = shlex.split(re.split(r" (?:>|& done)", line)[0], comments=True)
    starts = [place for place, word in enumerate(words) if word in ("proxybyte", "proxybyte.cli")]
    if starts:
        return words[starts[0] + 1 :]
    return ["train", *words[words.index("proxybyte.training.train") + 1 :]]


def count_imports(lines: dict[str, list[str]], cwd) -> dict[str, tuple]:
    import json

    done = subprocess.run(
        [sys.executable, "-c", COUNTED, json.dumps(lines), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return {name: (code, said, loaded) for name, code, said, loaded in map(json.loads, done.stdout.splitlines())}


def test_every_command_shows_examples():
    shown = {name.split(" ")[0] for name, _ in examples()}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize(("name", "line"), examples(), ids=[line for _, line in examples()])
def test_examples_of_help_are_taken_as_printed(name, line):
    if "--help" in words_of(line) and words_of(line)[:2] != ["eval", "lm"]:
        with pytest.raises(SystemExit) as end:
            build_parser(COMMANDS).parse_args(words_of(line))
        assert end.value.code == 0
        return
    args = build_parser(COMMANDS).parse_args(words_of(line))
    named = ".".join(words_of(line)[: len(name.split(" ")[0].split("."))])
    assert named in COMMANDS or name.startswith("compressor.fit") or named.startswith("train")
    assert callable(args.run)


def test_examples_that_need_nothing_run(capsys):
    for line in ("proxybyte info", "proxybyte doctor --no-torch", "proxybyte experiment run first --size smoke --list"):
        assert main(shlex.split(line)[1:]) == 0
    assert "tiny-llama" in capsys.readouterr().out


def test_no_help_waits_for_torch(tmp_path):
    lines = {name: [*name.split("."), "--help"] for name in COMMANDS} | {"top": ["--help"]}
    for name, (code, said, loaded) in count_imports(lines, tmp_path).items():
        assert (code, said, loaded) == (0, "", []), name


def test_no_refusal_waits_for_torch(tmp_path):
    for folder in ("empty", "model", "adapter", "prepared/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "model" / "config.json").touch()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).touch()
    ended = count_imports({name: words for name, (words, _) in REFUSED.items()}, tmp_path)
    for name, (code, said, loaded) in ended.items():
        sentence = REFUSED[name][1]
        assert (code, loaded) == (2 if sentence else 0, []), (name, said)
        assert sentence in said, name


def test_doctor_knows_the_tested_versions_from_the_package_itself(capsys, monkeypatch):
    tested = [line for line in requires("proxybyte") if "tested" in line]
    assert any(re.match(r"torch==2\.13\.0", line) for line in tested)
    assert main(["doctor", "--no-torch"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  torch +\S+ +2\.13\.0$", out, re.MULTILINE)
    for what in ("instructions", "memory", "disk here", "OMP_NUM_THREADS", "(extra 'quantized')"):
        assert what in out
    found = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "1.0" if name == "torch" else found(name))
    main(["doctor", "--no-torch"])
    assert re.search(r"^  torch +1\.0 +2\.13\.0 +other than tested$", capsys.readouterr().out, re.MULTILINE)


def test_doctor_names_what_is_needed_and_absent(capsys, monkeypatch):
    found = doctor.version

    def absent(name):
        if name == "zstandard":
            raise doctor.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(doctor, "version", absent)
    assert main(["doctor", "--no-torch"]) == 1
    assert "zstandard is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_is_told_how_to_complete(shell, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", shell])
    assert end.value.code == 0
    script = capsys.readouterr().out
    assert "compressor" in script
    assert "--max-new-bytes" in script
    if shell == "bash":
        path = tmp_path / "completion"
        path.write_text(script)
        assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
