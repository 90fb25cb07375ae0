"""What the pages say can be typed, opened and found: commands, options, make targets, files."""

import re
import shlex
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxybyte.cli import build_parser, load_commands

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PRESENT = [page for page in PAGES if page.name not in ("log.md", "CHANGELOG.md")]
"""Pages that describe the tree as it is; the others tell its history."""
ROOMS = ("modeling_proxy", "training", "eval", "hub_configs", "tests", "docs")
PARSER = build_parser(load_commands())


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def block_lines(text: str) -> Iterator[str]:
    """Lines of code blocks, fenced or indented, with continued lines joined."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    outside = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^ {4}(.*)$", outside, re.MULTILINE)
    joined = "\n".join([*fenced, *indented]).replace("\\\n", " ")
    return (line.strip().removeprefix("$ ") for line in joined.splitlines())


def typed(text: str) -> Iterator[list[str]]:
    """Words of each ``proxybyte`` command of the code blocks; what a shell adds around it is left out."""
    for line in block_lines(text):
        for part in re.split(r"\s(?:&&|\|\||[|;&>])(?:\s|$)|\bdo\s", re.sub(r"\s#\s.*", "", line)):
            command = re.match(r"(?:\w+=\S+\s+)*proxybyte\s+(.*)", part.strip())
            if command and "..." not in part:
                yield shlex.split(command[1])


def mentioned(text: str) -> Iterator[list[str]]:
    """Words of each command named within a sentence."""
    for words in re.findall(r"`proxybyte ([^`]+)`", text.replace("\n", " ")):
        yield words.split()


def sub_parser(words: list[str]) -> tuple[ArgumentParser, list[str]]:
    """The parser that the first words lead to, and the other words."""
    parser = PARSER
    while True:
        groups = [action for action in parser._actions if isinstance(action, _SubParsersAction)]
        if not groups or not words or words[0].startswith("-") or words[0].isupper():  # FAMILY stands for any
            return parser, words
        assert words[0] in groups[0].choices, f"'{words[0]}' is no command: there are {', '.join(groups[0].choices)}"
        parser, words = groups[0].choices[words[0]], words[1:]


def test_commands_are_found_as_they_are_written():
    """The finders themselves: else a page of another style would pass unread."""
    page = "text `proxybyte a b` and `proxybyte\nc`\n\n    FOO=1 proxybyte d \\\n      --e 1 # why\n\n"
    page += "```sh\nproxybyte f && proxybyte g > h\n```\n"
    assert list(mentioned(page)) == [["a", "b"], ["c"]]
    assert list(typed(page)) == [["f"], ["g"], ["d", "--e", "1"]]
    assert sum(len(list(typed(page.read_text(encoding="utf-8")))) for page in PRESENT) > 50


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_every_command_of_a_code_block_is_understood(page, capsys):
    for words in typed(page.read_text(encoding="utf-8")):
        try:
            arguments = PARSER.parse_args(words)
        except SystemExit as stop:
            assert not stop.code, f"{page.name}: proxybyte {shlex.join(words)}\n{capsys.readouterr().err}"
        else:
            assert callable(arguments.run)


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_every_command_named_in_a_sentence_exists_with_its_options(page):
    for words in mentioned(page.read_text(encoding="utf-8")):
        parser, rest = sub_parser(words)
        options = {word.partition("=")[0].rstrip(".,") for word in rest if re.match(r"--?[a-z]", word)}
        known = set(parser._option_string_actions)
        unknown = {option for option in options if not any(one.startswith(option) for one in known)}
        assert not unknown, f"{page.name}: proxybyte {' '.join(words)} has no {', '.join(unknown)}"


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_every_make_target_exists(page):
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    named = {target for line in block_lines(text) for target in re.findall(r"^make ([\w-]+)", line)}
    named |= set(re.findall(r"`make ([\w-]+)", text))
    assert named <= targets, f"{page.name}: make {', '.join(named - targets)}"


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_every_file_of_the_tree_that_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    paths = {path for path in re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./*-]+)`", text) if "*" not in path}
    missing = sorted(path for path in paths if not (ROOT / path).exists())
    assert not missing, f"{page.name} names {', '.join(missing)}"


def test_phony_targets_of_the_makefile_are_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    assert set(phony.split()) == targets


def test_every_link_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"
