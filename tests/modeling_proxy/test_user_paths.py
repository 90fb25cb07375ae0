"""``~`` is a home folder wherever a path is read: YAML, overrides, and the options of every command."""

import argparse
from pathlib import Path

import pytest

from proxybyte import numbers
from proxybyte.cli import Parser, build_parser, load_commands
from proxybyte.errors import ProxyByteError
from proxybyte.training.experiments.schema import CompressorConfig, CorpusConfig
from proxybyte.training.remote import place
from proxybyte.training.run.config_io import load_config
from proxybyte.user_paths import name_or_path, user_path


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def parsers(parser):
    """A parser and all below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


PLACES = {"FOLDER", "FILE", "CORPUS", "ADAPTER", "M1", "MODEL", "RUN_OR_FOLDER", "NAME_OR_FOLDER", "BASE"}


def test_every_option_of_every_command_that_is_a_path_is_expanded(home):
    seen = 0
    for parser in parsers(build_parser(load_commands())):
        for action in parser._actions:
            if action.type in (numbers.path, numbers.path_or_name, numbers.picture, place):
                assert str(parser._get_value(action, "~/x.png")) == str(home / "x.png"), (parser.prog, action.dest)
                seen += 1
            else:
                assert action.metavar not in PLACES, (parser.prog, action.dest, "is a path that is not expanded")
    assert seen > 40


def test_an_option_written_with_an_equals_sign_is_expanded(home):
    parser = Parser()
    parser.add_argument("--out", type=numbers.path)
    inner = parser.add_subparsers().add_parser("inner")
    inner.add_argument("--more", type=numbers.path, nargs="+")
    args = parser.parse_args(["--out=~/a", "inner", "--more", "~", "b/~"])
    assert (args.out, args.more) == (home / "a", [home, Path("b/~")])


def test_recipes_and_overrides_are_expanded_in_every_key_that_is_a_path(home, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("output: ~/runs/a\ndata: ~/d\nmodel: {checkpoint: ~/m}\n")
    config = load_config(recipe, ["teacher.model=~/t"])
    assert (config.output, config.data) == (home / "runs/a", home / "d")
    assert (config.model.checkpoint, config.teacher.model) == (home / "m", home / "t")
    assert load_config(recipe, ["output=~/b"]).output == home / "b"


def test_a_recipe_itself_may_lie_at_home(home):
    home.mkdir()
    (home / "r.yaml").write_text("output: o\ndata: d\nmodel: {preset: tiny}\n")
    assert load_config("~/r.yaml").output == Path("o")


def test_experiment_plans_are_expanded(home):
    corpus = CorpusConfig(sources=("~/src", "other"), folder="~/corpus")
    assert corpus.sources == (home / "src", Path("other"))
    assert corpus.folder == home / "corpus"
    assert CompressorConfig(use="~/bpe").use == str(home / "bpe")
    assert CompressorConfig(use="gzip").use == "gzip"


def test_what_cannot_be_a_path_is_one_sentence(home):
    for text, message in (("~no-such-user/x", "names no home folder"), ("a\0b", "NUL")):
        with pytest.raises(ProxyByteError, match=message):
            user_path(text)
    assert name_or_path("gzip") == "gzip"
    assert name_or_path("~/x") == str(home / "x")
