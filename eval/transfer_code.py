"""Translation of programs: what a model writes of a published solution, given its other view, is run against the tests.

An edit distance says how many bytes are wrong; whether the program still does its work, only running it can say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.judging import Bench, run_known
from proxybyte.eval.code.pass_at_k import Estimate, estimate
from proxybyte.eval.code.problems import Problem
from proxybyte.eval.sandbox import Trial
from proxybyte.eval.scoring import position_limit
from proxybyte.eval.transfer import Direction, Written, symbols_of_both, translate
from proxybyte.eval.transfer_data import Pair, TwoViewModel
from proxybyte.training import CannotEncode


@dataclass(frozen=True)
class Programs:
    """Published solutions as documents.

    Attributes:
        problems: those whose solution has codes and fits into the model in both views.
        pairs: each solution in both views, in the order of ``problems``.
        left_out: how many others there are.
    """

    problems: list[Problem]
    pairs: list[Pair]
    left_out: int


@dataclass(frozen=True)
class TranslatedPrograms:
    """What came of translating programs in one direction.

    Attributes:
        written: the translations.
        pass_at_1: share of them that pass their tests (one greedy sample each), with its interval.
    """

    written: list[Written]
    pass_at_1: Estimate


def programs_in_both_views(two: TwoViewModel, problems: Sequence[Problem]) -> Programs:
    """The published solutions, signature and docstring included, that ``two`` can hold in both views at once.

    Raises:
        ProxyByteError: if none fits.
    """
    texts = [f"{problem.head}{problem.canonical}".encode() for problem in problems]
    limit = position_limit(two.model)
    kept, pairs = [], []
    for problem, text, codes in zip(problems, texts, two.compressor.encode_batch(texts), strict=True):
        if not isinstance(codes, CannotEncode) and symbols_of_both(Pair(text, codes)) <= limit:
            kept.append(problem)
            pairs.append(Pair(text, codes))
    if not kept:
        raise ProxyByteError(
            f"none of the {len(problems)} solutions fits into the model's {limit} positions in both views: "
            "train with longer rows to measure this"
        )
    return Programs(kept, pairs, len(problems) - len(kept))


def translate_programs(
    two: TwoViewModel, programs: Programs, direction: Direction, bench: Bench, progress: bool = False
) -> TranslatedPrograms:
    """Translate each program and run what comes out, behind the walls of ``bench``, against its problem's tests."""
    written = translate(two, programs.pairs, direction, progress)
    # Bytes that are no UTF-8 are no program either: what stands in their place does not compile.
    sources = [
        Trial(f"{one.produced.decode('utf-8', 'replace')}\n", problem.separate_tests)
        for one, problem in zip(written, programs.problems, strict=True)
    ]
    passed = [outcome.passed for outcome in run_known(sources, bench)]
    return TranslatedPrograms(written, estimate(np.array(passed, np.float64)))
