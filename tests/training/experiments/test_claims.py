"""One of many gets a claim, and a claim does not outlive its owner."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from proxybyte.training.experiments.claims import STALE_SECONDS, claim, process_space, wait_for_claim

HOLD = """
import sys, time
from pathlib import Path
from proxybyte.training.experiments.claims import claim
with claim(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def race(target, start, wins):
    """One of several processes that take the claim at once and keep it until all have tried."""
    start.wait()
    with claim(target) as mine:
        wins.put(mine)
        start.wait()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_gets_it(tmp_path, stale):
    target = tmp_path / "cell"
    if stale:
        write_claim(target, pid=dead_pid())
    context = multiprocessing.get_context("fork")
    start, wins = context.Barrier(6), context.Queue()
    racers = [context.Process(target=race, args=(target, start, wins)) for _ in range(6)]
    for racer in racers:
        racer.start()
    assert sorted(wins.get(timeout=60) for _ in racers) == [False] * 5 + [True]
    for racer in racers:
        racer.join()


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write_claim(target, pid, host=None, started=0.0, age=0.0):
    path = target.with_name(f"{target.name}.claim-0001")
    path.write_text(json.dumps({"host": host or process_space(), "pid": pid, "started": started}))
    then = time.time() - age
    os.utime(path, (then, then))


def test_a_claim_is_free_again_after_the_block_and_after_an_error_in_it(tmp_path):
    target = tmp_path / "cell"
    for _ in range(2):
        with pytest.raises(RuntimeError), claim(target) as mine:
            assert mine
            with claim(target) as again:
                assert not again
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_owner_loses_it_at_once_on_the_same_machine(tmp_path):
    target = tmp_path / "cell"
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "True\n"
    with claim(target) as mine:
        assert not mine
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with claim(target) as mine:
        assert mine


def test_an_owner_whose_end_its_parent_has_not_noticed_is_dead(tmp_path):
    """As in containers without an init process: it stays in the table of processes for as long as its parent lives."""
    target = tmp_path / "cell"
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "True\n"
    owner.kill()
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(owner.pid).status() == psutil.STATUS_ZOMBIE
    with claim(target) as mine:
        assert mine
    owner.wait()


def test_a_container_of_the_same_host_name_is_another_machine(tmp_path):
    """Its process numbers are its own: that there is none here says nothing."""
    target = tmp_path / "cell"
    write_claim(target, pid=dead_pid(), host=f"{process_space()}0")
    with claim(target) as mine:
        assert not mine


def test_a_process_number_that_was_given_out_again_is_no_owner(tmp_path):
    target = tmp_path / "cell"
    write_claim(target, pid=os.getpid(), started=12345.0)
    with claim(target) as mine:
        assert mine


@pytest.mark.parametrize(("age", "free"), [(0.0, False), (STALE_SECONDS / 2, False), (STALE_SECONDS + 5, True)])
def test_another_machine_keeps_it_as_long_as_it_renews_it(tmp_path, age, free):
    target = tmp_path / "cell"
    write_claim(target, pid=1, host="elsewhere", age=age)
    with claim(target) as mine:
        assert mine is free


def test_a_living_process_of_this_machine_keeps_it_however_long_it_is_silent(tmp_path):
    """It may have been stopped, and would go on with a cell that another had taken."""
    target = tmp_path / "cell"
    write_claim(target, pid=os.getpid(), started=psutil.Process().create_time(), age=10 * STALE_SECONDS)
    with claim(target) as mine:
        assert not mine


def test_a_claim_that_was_never_written_to_the_end_goes_stale(tmp_path):
    target = tmp_path / "cell"
    path = target.with_name("cell.claim-0001")
    path.write_text("")
    with claim(target) as mine:
        assert not mine
    os.utime(path, (time.time() - 60, time.time() - 60))
    with claim(target) as mine:
        assert mine


def test_waiting_ends_when_the_owner_is_done(tmp_path):
    target = tmp_path / "cell"
    order = []
    with claim(target):
        waiter = threading.Thread(target=lambda: (wait_for_claim(target, seconds=0.01), order.append("waited")))
        waiter.start()
        time.sleep(0.05)
        order.append("done")
    waiter.join(timeout=30)
    assert order == ["done", "waited"]
