"""Typing errors in the docstring's prose; examples, names, numbers and quoted text stay as they are."""

import io
import keyword
import random
import re
import tokenize
from collections.abc import Callable, Iterator

from proxybyte.eval.robustness.edits import Edit, Perturbation, Solved
from proxybyte.eval.robustness.variants import Family

_SHARE_OF_WORDS = 0.15
_WORD = re.compile(r"(?<![\w.'\"`\\])[A-Za-z]{3,}(?![\w('\"`\[])")
_NEIGHBOURS = {
    **dict(zip("qwertyuiop", ["wa", "qes", "wrd", "etf", "ryg", "tuh", "yij", "uok", "ipl", "ol"], strict=True)),
    **dict(zip("asdfghjkl", ["qsz", "awdx", "sefc", "drgv", "fthb", "gyjn", "hukm", "jil", "ko"], strict=True)),
    **dict(zip("zxcvbnm", ["asx", "zsdc", "xdfv", "cfgb", "vghn", "bhjm", "njk"], strict=True)),
}
"""Letters beside each on a QWERTY keyboard."""


def neighbour(letter: str, rng: random.Random) -> str:
    """A letter beside ``letter`` on the keyboard, in its case; ``letter`` itself if it is none."""
    beside = _NEIGHBOURS.get(letter.lower())
    if beside is None:
        return letter
    found = rng.choice(beside)
    return found.upper() if letter.isupper() else found


def _names(solved: Solved) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(solved.source).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME and not keyword.iskeyword(token.string)}


def _prose_lines(solved: Solved) -> Iterator[tuple[int, int]]:
    """Spans of the docstring's lines that are no example: from ``>>>`` to the next empty line is one."""
    span = solved.docstring
    if span is None:
        return
    place, in_example = span[0], False
    for line in solved.source[span[0] : span[1]].split("\n"):
        in_example = bool(line.strip()) and (in_example or ">>>" in line)
        if not in_example:
            yield place, place + len(line)
        place += len(line) + 1


def _words(solved: Solved, rng: random.Random) -> list[tuple[int, str]]:
    """A share of the docstring's plain words, where they begin and what they are; one at least, if it has any."""
    names = _names(solved)
    found = [
        (match.start(), match[0])
        for start, end in _prose_lines(solved)
        for match in _WORD.finditer(solved.source, start, end)
        if match[0] not in names and match[0] not in ("True", "False", "None")
    ]
    return rng.sample(found, min(len(found), max(1, round(_SHARE_OF_WORDS * len(found)))))


def _in_words(change: Callable[[str, random.Random], str]) -> Callable[[Solved, random.Random], list[Edit]]:
    def perturb(solved: Solved, rng: random.Random) -> list[Edit]:
        return [Edit(start, start + len(word), change(word, rng)) for start, word in _words(solved, rng)]

    return perturb


def _slip(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word))
    return word[:place] + neighbour(word[place], rng) + word[place + 1 :]


def _swap(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word) - 1)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _turn_case(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word))
    return word[:place] + word[place].swapcase() + word[place + 1 :]


def _space(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word))
    return word[:place] + " " + word[place:]


DOCSTRINGS = tuple(
    Perturbation(Family.DOCSTRINGS, name, _in_words(change))
    for name, change in {
        "butter_fingers": _slip,
        "swap_chars": _swap,
        "char_case": _turn_case,
        "spaces": _space,
    }.items()
)
