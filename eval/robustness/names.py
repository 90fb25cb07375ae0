"""Other names for the function asked for, everywhere it is named: prompt, docstring, solution and tests."""

import builtins
import keyword
import random
import re
from dataclasses import replace

from proxybyte.eval.code.problems import Problem
from proxybyte.eval.robustness.docstrings import neighbour
from proxybyte.eval.robustness.edits import Perturbation
from proxybyte.eval.robustness.variants import Family

_TRIES = 20


def rename_function(problem: Problem, perturbation: Perturbation, rng: random.Random) -> Problem:
    """``problem`` with its function renamed; as it was where no free name is found."""
    assert perturbation.renames is not None
    whole = f"{problem.head}{problem.canonical}{problem.tests}"
    for _ in range(_TRIES):
        name = perturbation.renames(problem.entry_point, rng)
        taken = keyword.iskeyword(name) or hasattr(builtins, name) or re.search(rf"\b{re.escape(name)}\b", whole)
        if name.isidentifier() and not taken:
            break
    else:
        return problem

    pattern = _mentions(problem.entry_point)

    def renamed(text: str) -> str:
        return pattern.sub(name, text)

    return replace(
        problem,
        prompt=renamed(problem.prompt),
        head=renamed(problem.head),
        tests=renamed(problem.tests),
        canonical=renamed(problem.canonical),
        entry_point=name,
    )


def _mentions(name: str) -> re.Pattern[str]:
    """Where a text means the function; a name that is also a word ("add") only where it is called or checked."""
    word = re.escape(name)
    if "_" in name or name != name.lower():
        return re.compile(rf"\b{word}\b")
    return re.compile(rf"\b{word}(?=\()|(?<=check\(){word}\b")


def _camel(name: str, _rng: random.Random) -> str:
    first, *rest = [part for part in name.split("_") if part] or [name]
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _slip(name: str, rng: random.Random) -> str:
    place = rng.randrange(len(name))
    return name[:place] + neighbour(name[place], rng) + name[place + 1 :]


def _swap(name: str, rng: random.Random) -> str:
    place = rng.randrange(len(name) - 1) if len(name) > 1 else 0
    return name[:place] + name[place + 1 : place + 2] + name[place] + name[place + 2 :]


def _turn_case(name: str, rng: random.Random) -> str:
    place = rng.randrange(len(name))
    return name[:place] + name[place].swapcase() + name[place + 1 :]


NAMES = (
    Perturbation(Family.FUNCTION_NAMES, "camel_case", seeded=False, renames=_camel),
    Perturbation(Family.FUNCTION_NAMES, "butter_fingers", renames=_slip),
    Perturbation(Family.FUNCTION_NAMES, "swap_chars", renames=_swap),
    Perturbation(Family.FUNCTION_NAMES, "char_case", renames=_turn_case),
)
