"""Every command that writes something ends with what it made and with what comes next."""

import random
import re
import shlex

from proxybyte.cli import build_parser, load_commands, main

RECIPE = ("--config", "quickstart", "data=prepared", "output=run", "plan.row_length=64", "plan.budget=512")
SMALL = ("batch.rows_per_step=2", "batch.rows_per_device=2", "evaluation.every=0", "log.trackers=[]")
WRITES = (
    ("corpus", ("texts", "--validation-share", "0.3", "--out", "corpus"), "corpus"),
    ("compressor fit", ("bpe", "--corpus", "corpus", "--symbols", "300", "--out", "bpe"), "bpe"),
    ("prepare", ("corpus", "--compressor", "bpe", "--out", "prepared"), "prepared"),
    ("train", (*RECIPE, *SMALL), "run/model"),
    ("report", ("run", "--max-mb", "0.002"), "run/report.html"),
    ("export", ("run", "--format", "native", "--out", "native"), "native"),
    ("export", ("run", "--format", "full", "--out", "full"), "full"),
)
"""Command, its arguments, and what its end must name; each works on what those before it made."""


def write_texts(folder) -> None:
    rng = random.Random(0)
    for number in range(16):
        package = folder / f"package{number}"
        package.mkdir(parents=True)
        lines = [f"def f{rng.randrange(1000)}(x):\n    return x + {rng.randrange(1000)}\n" for _ in range(12)]
        (package / "code.py").write_text("".join(lines))


def test_what_was_made_and_what_comes_next_end_every_command(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")  # train tells it by its log
    write_texts(tmp_path / "texts")
    parser = build_parser(load_commands())
    for command, words, made in WRITES:
        caplog.clear()
        assert main([*command.split(), *words]) == 0, capfd.readouterr().err
        out, err = capfd.readouterr()
        lines = [line for line in [*out.splitlines(), *err.splitlines(), *caplog.messages] if line.strip()]
        assert (tmp_path / made).exists(), command
        following = next((line for line in lines if line.startswith("next: ")), "")
        assert following, (command, lines)
        assert any(re.search(rf"\b{made}\b", line) for line in lines if line != following), (command, lines)
        assert following in (out.splitlines() or [""])[-1:] + err.splitlines()[-1:] + caplog.messages[-1:], command
        typed = shlex.split(following.removeprefix("next: proxybyte ").partition(", or ")[0])
        assert callable(parser.parse_args(typed).run), command
        assert any((tmp_path / word.rpartition("=")[2]).exists() for word in typed), (command, following)
