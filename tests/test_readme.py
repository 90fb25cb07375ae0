"""A newcomer's path: what README.md says is what works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from proxybyte.cli import build_parser, load_commands

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROXYBYTE = Path(sys.executable).parent / "proxybyte"
SMALL = ("plan.row_length=128", "plan.budget=12800", "batch.rows_per_step=4", "batch.rows_per_device=4")
SMALL_RUN = (*SMALL, "evaluation.documents=2", "evaluation.max_bytes=400", "log.trackers=[]")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def tour() -> list[list[str]]:
    """Words of each ``proxybyte`` command in the README, comments left out."""
    lines = [line for block in code_blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("proxybyte ")]


def run(*command, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)", "\n".join(code_blocks("sh")), re.MULTILINE)
    assert commands == ["quickstart", "test"]
    assert all(re.search(rf"^{target}: \$\(STAMP\)", makefile, re.MULTILINE) for target in commands)


def test_ci_runs_the_test_command_of_the_readme_after_lint_and_types():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()
    assert lines[-2:] == ["make lint", "exec make test"]
    assert "set -euo pipefail" in lines


def test_quickstart_goes_all_the_way(tmp_path):
    """The command behind ``make quickstart`` at a small size: every step, to bytes from stock Transformers."""
    small = ("--out", tmp_path / "tour", "--max-mb", "1", *SMALL_RUN)
    out = run(PROXYBYTE, "quickstart", *small, cwd=tmp_path)
    assert "LlamaForCausalLM, 320 symbols" in out
    assert "# Copyright 2025 The" in out
    for line in ("this model", "the same model, untrained", "gzip -9, each document", "xz, each document"):
        assert re.search(rf"^  {line} +\d+\.\d{{3}}$", out, re.MULTILINE)
    assert (tmp_path / "tour" / "run" / "loss.png").stat().st_size > 1000
    page = (tmp_path / "tour" / "run" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page), "the page needs nothing beside it"
    parser, end = build_parser(load_commands()), out.split("type next")[1]
    for line in filter(str.strip, end.splitlines()):
        _, *words = shlex.split(line)
        assert callable(parser.parse_args(words).run)
        named = [word.partition("=")[2] or word for word in words if "tour" in word and "longer" not in word]
        assert named and all(Path(tmp_path, name).exists() for name in named)


@pytest.mark.slow
def test_the_tour_runs_literally(tmp_path):
    for _, *words in tour():
        run(PROXYBYTE, *words, cwd=tmp_path)
    for block in code_blocks("python"):
        assert "def fibonacci(n):" in run(sys.executable, "-c", block, cwd=tmp_path)
