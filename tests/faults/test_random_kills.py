"""Commands killed at random moments: what they leave is whole, and given again they end as if left alone.

A few kills of each, at moments drawn anew each time; ``make soak`` is the same for hours. A failure names the seed:
``python tests/soak kills --only COMMAND --seed SEED`` does it again.
"""

import json
import random
from collections.abc import Iterator

import pytest
from kill_trials import SUBJECTS, Trials, newest_whole

KILLS = 2


@pytest.fixture(scope="session")
def trials(inputs, server, tmp_path_factory) -> Iterator[Trials]:
    return Trials(inputs, server, tmp_path_factory.mktemp("trials"))


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_killed_at_random_moments_it_ends_as_if_left_alone(subject, trials):
    seed, before = random.SystemRandom().randrange(10**9), trials.counts.kills
    while trials.counts.kills < before + KILLS:
        trials.run(subject, seed)
        seed += 1


def test_the_harness_sees_what_is_not_whole(tmp_path):
    """Its own judgement of a checkpoint, on one made by hand."""
    for step, content in ((4, b"weights"), (8, b"weightt")):
        folder = tmp_path / f"step-{step:08d}"
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model.safetensors").write_bytes(content)
        # sha256sum of "weights"
        digest = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
        files = {"model/model.safetensors": {"bytes": 7, "sha256": digest}}
        (folder / "state.json").write_text(json.dumps({"files": files}))
    assert newest_whole(tmp_path) == tmp_path / "step-00000004"
