"""The front door: commands by entry point, one sentence and exit code 2 for bad input."""

import argparse
import errno
import re

import pytest

from proxybyte import cli
from proxybyte.errors import ProxyByteError


def command(run) -> cli.Command:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--count", type=int, default=1)

    return cli.Command("does a thing", "  proxybyte thing --count 2", add_arguments, run)


@pytest.fixture
def installed(monkeypatch):
    def install(**commands):
        monkeypatch.setattr(cli, "load_commands", lambda: {n.replace("_", "."): c for n, c in commands.items()})

    return install


def test_bad_input_is_one_sentence_and_exit_code_2(installed, capsys):
    def run(_):
        raise ProxyByteError("no file at x: give another")

    installed(thing=command(run))
    assert cli.main(["thing"]) == 2
    assert capsys.readouterr().err == "proxybyte: no file at x: give another\n"


def test_a_file_that_cannot_be_written_is_one_sentence(installed, capsys, tmp_path):
    installed(thing=command(lambda args: (tmp_path / "absent" / "file").write_text("")))
    assert cli.main(["thing"]) == 2
    assert capsys.readouterr().err == f"proxybyte: {tmp_path / 'absent' / 'file'}: No such file or directory\n"


def test_what_nobody_expected_is_one_sentence_and_exit_code_70(installed, capsys):
    installed(thing=command(lambda args: {}["absent"]))
    assert cli.main(["thing"]) == 70
    said = capsys.readouterr().err
    assert said.startswith("proxybyte: unexpected KeyError: 'absent'")
    assert "--debug" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [["thing", "--debug"], ["--debug", "thing"]])
def test_debug_shows_the_traceback_too(installed, capsys, words):
    installed(thing=command(lambda args: {}["absent"]))
    assert cli.main(words) == 70
    said = capsys.readouterr().err
    assert "return args.run(args)" in said
    assert said.endswith("shows where\n")


def test_flags_behind_two_dashes_are_the_commands_own():
    assert cli.take_common_flags(["a", "--", "--debug"]) == (["a", "--", "--debug"], False)


def test_a_full_disk_is_one_sentence_whoever_reports_it(installed, capsys, tmp_path):
    from safetensors import SafetensorError

    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    closed = ValueError("I/O operation on closed file")
    closed.__context__ = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "shard"))
    for error in (OSError(errno.ENOSPC, "No space left on device"), SafetensorError(said), closed):

        def run(_, error=error):
            raise error

        installed(thing=command(run))
        assert cli.main(["thing"]) == 2
        sentence = capsys.readouterr().err
        assert re.search(r"cannot be written: the disk is full.*[\d,.]+ MB are free in /", sentence), sentence
        assert (str(tmp_path / "shard") in sentence) == (error is closed)


def test_a_dotted_name_is_a_group(installed, capsys):
    seen = []
    installed(group_one=command(lambda args: seen.append(args.count)), group_two=command(lambda args: 3))
    assert cli.main(["group", "one", "--count", "5"]) == 0
    assert cli.main(["group", "two"]) == 3
    assert seen == [5]
    with pytest.raises(SystemExit) as stop:
        cli.main(["group", "three"])
    assert stop.value.code == 2
    assert "one" in capsys.readouterr().err


def test_help_shows_examples(installed, capsys):
    installed(thing=command(lambda args: 0))
    with pytest.raises(SystemExit) as stop:
        cli.main(["thing", "--help"])
    assert stop.value.code == 0
    assert "proxybyte thing --count 2" in capsys.readouterr().out


def test_interrupting_is_exit_code_130(installed, capsys):
    def run(_):
        raise KeyboardInterrupt

    installed(thing=command(run))
    assert cli.main(["thing"]) == 130


def test_every_installed_command_has_a_summary_and_examples():
    commands = cli.load_commands()
    assert commands
    for name, found in commands.items():
        assert found.summary, name
        assert f"proxybyte {name.replace('.', ' ')}" in found.examples, name
