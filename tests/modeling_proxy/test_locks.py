"""One process at a time in an output, and the other one is told which."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from proxybyte.locks import HeldError, hold, hold_if_free, lock_path, owner_of, wait_until_free

HOLDER = """
import sys, time
from pathlib import Path
from proxybyte.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def another(tmp_path):
    """A process that holds the lock on ``tmp_path/out``."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_process_is_refused_by_the_name_of_the_first(another, tmp_path):
    with pytest.raises(HeldError) as refused, hold(tmp_path / "out"):
        pass
    assert f"process {another.pid} on {socket.gethostname()}" in str(refused.value)
    with hold_if_free(tmp_path / "out") as mine:
        assert not mine
    assert owner_of(tmp_path / "out").pid == another.pid
    with hold(tmp_path / "out2"):  # another output is free
        pass


def test_another_name_of_the_folder_is_the_same_folder(another, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(HeldError), hold(tmp_path / "link"):
        pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_holds_nothing(another, tmp_path, how):
    another.send_signal(how)
    another.wait()
    assert owner_of(tmp_path / "out") is None
    wait_until_free(tmp_path / "out")
    with hold(tmp_path / "out"):
        assert owner_of(tmp_path / "out").pid == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_thread_that_holds_it_holds_it_on_and_another_thread_does_not(tmp_path):
    seen = []

    def other_thread():
        with hold_if_free(tmp_path / "out") as mine:
            seen.append(mine)

    with hold(tmp_path / "out"):
        with hold(tmp_path / "out"):
            pass
        assert lock_path(tmp_path / "out").exists()
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
    assert seen == [False]
    assert not lock_path(tmp_path / "out").exists()


def test_folders_made_for_the_lock_go_if_nothing_was_written(tmp_path):
    with hold(tmp_path / "deep" / "er" / "out"):
        pass
    assert not list(tmp_path.iterdir())
    with hold(tmp_path / "deep" / "er" / "out") as _:
        (tmp_path / "deep" / "er" / "out").mkdir()
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["out"]


COUNTER = """
import sys
from pathlib import Path
from proxybyte.locks import hold_if_free
target, n = Path(sys.argv[1]), 0
while n < 200:
    with hold_if_free(target) as mine:
        if mine:
            (target.parent / "count").write_text(str(int((target.parent / "count").read_text()) + 1))
            n += 1
"""


def test_nobody_gets_in_while_the_lock_file_is_removed(tmp_path):
    """Letting go removes the file; a lock taken on the removed file would let two count at once."""
    (tmp_path / "count").write_text("0")
    racing = [subprocess.Popen([sys.executable, "-c", COUNTER, str(tmp_path / "out")]) for _ in range(3)]
    assert [process.wait(60) for process in racing] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "600"
