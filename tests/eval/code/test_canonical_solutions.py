"""Published solutions pass and broken ones do not, in the real sandbox."""

import pytest

from proxybyte.eval.code.judging import Bench, canonical_samples, judge
from proxybyte.eval.code.problems import CodeSet
from proxybyte.eval.code.samples import Sample
from proxybyte.eval.code.sources import load_problems
from proxybyte.eval.sandbox import Limits, Wall, capabilities

pytestmark = pytest.mark.skipif(capabilities().wall is Wall.LIMITS, reason="this machine has weak walls only")

BENCH = Bench(Limits(), capabilities().wall)
EIGHTH = load_problems(CodeSet.HUMANEVAL)[::8]


@pytest.mark.parametrize("share", [EIGHTH, pytest.param(load_problems(CodeSet.HUMANEVAL), marks=pytest.mark.slow)])
def test_every_published_solution_passes(share):
    outcomes = judge(share, canonical_samples(share), BENCH)
    assert [outcome.detail for outcome in outcomes if not outcome.passed] == []


@pytest.mark.parametrize("share", [EIGHTH[::3], pytest.param(load_problems(CodeSet.HUMANEVAL), marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "body",
    [
        "    pass\n",
        "    return None\n",
        "    raise SystemExit(0)\n",
        "    import os\n    os._exit(0)\n",
        "    return (\n",
        "",
        "    return object()\n\nimport os\nos._exit(0)\n",
    ],
)
def test_no_broken_solution_passes(share, body):
    outcomes = judge(share, [Sample(problem.task_id, 0, body) for problem in share], BENCH)
    assert not any(outcome.passed for outcome in outcomes)
