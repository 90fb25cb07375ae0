"""How threads of OpenMP wait in our commands, by the runtime's own word (``OMP_DISPLAY_ENV``)."""

import os
import subprocess
import sys

import pytest

from proxybyte.cli import let_threads_sleep

SPINS_LONG = "77"


def told_by_the_runtime(**mine: str) -> dict[str, str]:
    """What it says of itself in ``proxybyte doctor``, under a user's own variables ``mine``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment = {**kept, "OMP_DISPLAY_ENV": "verbose", **mine}
    words = [sys.executable, "-m", "proxybyte.cli", "doctor"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    pairs = [line.strip().split(" = ") for line in done.stderr.splitlines() if " = " in line]
    return {name.split()[-1]: value.strip("'") for name, value in pairs}


@pytest.mark.skipif(sys.platform != "linux", reason="torch carries the GNU runtime on Linux")
@pytest.mark.parametrize(("mine", "spins"), [({}, "0"), ({"GOMP_SPINCOUNT": SPINS_LONG}, SPINS_LONG)])
def test_threads_that_wait_sleep_unless_the_user_says_how(mine, spins):
    assert told_by_the_runtime(**mine)["GOMP_SPINCOUNT"] == spins


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"])
def test_what_the_user_says_stays(name):
    mine = {name: "as they like"}
    let_threads_sleep(mine)
    assert mine == {name: "as they like"}
