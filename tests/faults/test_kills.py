"""A command that is killed at its last step, before or behind the rename: given again, it ends quietly and the same."""

import signal

import pytest

from proxybyte.checksums import read_record, verify_folder
from proxybyte.cli import main

PUBLISH = {"prepare": "proxybyte.training.prepare.publish:publish"}


@pytest.mark.parametrize("after", [pytest.param(False, marks=pytest.mark.slow), True], ids=["before", "behind"])
def test_a_command_killed_at_its_last_step_ends_quietly_when_it_is_given_again(
    command, after, inputs, server, tmp_path
):
    out, whole = tmp_path / "out", tmp_path / "elsewhere" / "out"
    place = PUBLISH.get(command, "proxybyte.folders:publish")
    how = {"at": place, "of": str(out), "after": after, "signal": signal.SIGKILL}
    code, said = server.run(inputs.words(command, out), **how)
    assert code == -signal.SIGKILL, said
    assert out.exists() == after
    assert main(inputs.words(command, out)) == 0
    verify_folder(out)
    assert main(inputs.words(command, whole)) == 0
    assert read_record(out).sums == read_record(whole).sums
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"], "nothing is left beside it"
