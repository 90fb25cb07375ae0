"""Questions about the characters of words, of the kinds that CUTE asks (arXiv 2409.15452), with items of our own.

Each question has four choices, one right, and three solved examples before it, so that models too weak to write an
answer can still be asked which they find likelier. Items are drawn from the words below by a seed: the same on every
machine. This module imports nothing of ours, so that the folder can be copied anywhere.
"""

import random
from collections.abc import Callable
from difflib import SequenceMatcher
from typing import Any

from datasets import Dataset, DatasetDict

_LINES = (
    "anchor apple autumn balloon banana basket beaver bottle branch bridge butter button camera candle carpet",
    "castle cheese cherry circle coffee copper corner cotton desert dinner dragon engine family feather finger",
    "flower forest garden garlic ginger guitar hammer harbor helmet honey island jacket jungle kettle kitten",
    "ladder lantern lemon letter lizard magnet marble market meadow mirror monkey morning mountain needle number",
    "office orange oyster palace pepper pillow pirate planet pocket potato puzzle rabbit ribbon river rocket",
    "saddle salmon school shadow silver spider spring square station stone summer teacher temple thunder ticket",
    "tiger tomato tunnel turtle valley velvet village violin wagon walnut water whistle window winter wizard wolf",
    "yellow",
)
WORDS = [word for line in _LINES for word in line.split()]
EXAMPLES = ("bread", "mouse", "silent")
"""Words of the solved examples; none is asked about."""
CHOICES = 4
ITEMS = 60


def load(kind: str, **_unused: Any) -> DatasetDict:
    """Questions of one kind as the split ``test``: ``context``, ``choices`` and which one is the ``answer``.

    Args:
        kind: ``spell``, ``reverse``, ``count``, ``delete``, ``swap`` or ``similar``.
        _unused: lm-eval's model arguments.
    """
    ask = _KINDS[kind]
    draw = random.Random(kind)
    solved = []
    for word in EXAMPLES:
        question, right, _ = ask(word, draw)
        solved.append(f"{question}{right}\n\n")
    rows = []
    for word in draw.sample(WORDS, ITEMS):
        question, right, wrong = ask(word, draw)
        choices = [right, *wrong]
        draw.shuffle(choices)
        rows.append({"context": "".join(solved) + question, "choices": choices, "answer": choices.index(right)})
    return DatasetDict({"test": Dataset.from_list(rows)})


Question = tuple[str, str, list[str]]
"""The text up to the answer, the right answer, and three wrong ones."""


def _spell(word: str, draw: random.Random) -> Question:
    wrong = [" ".join(other) for other in _damaged(word, draw)]
    return f"Word: {word}\nLetters:", f" {' '.join(word)}", [f" {other}" for other in wrong]


def _reverse(word: str, draw: random.Random) -> Question:
    return f"Word: {word}\nBackwards:", f" {word[::-1]}", [f" {other}" for other in _damaged(word[::-1], draw)]


def _count(word: str, draw: random.Random) -> Question:
    letter = draw.choice(word)
    right = word.count(letter)
    wrong = draw.sample([count for count in range(1, 6) if count != right], CHOICES - 1)
    return f'How often is the letter "{letter}" in "{word}"?', f" {right}", [f" {count}" for count in wrong]


def _delete(word: str, draw: random.Random) -> Question:
    letter = draw.choice(word)
    right = word.replace(letter, "")
    question = f'Leave every letter "{letter}" out of "{word}":'
    return question, f" {right}", [f" {other}" for other in _damaged(right, draw)]


def _swap(word: str, draw: random.Random) -> Question:
    one, other = draw.sample(sorted(set(word)), 2)
    right = word.translate(str.maketrans(one + other, other + one))
    question = f'Exchange the letters "{one}" and "{other}" in "{word}":'
    return question, f" {right}", [f" {damaged}" for damaged in _damaged(right, draw, (word,))]


def _similar(word: str, draw: random.Random) -> Question:
    right = _damaged(word, draw)[0]
    far = [other for other in WORDS if SequenceMatcher(None, word, other).ratio() < 0.4]
    wrong = draw.sample(far, CHOICES - 1)
    return f'Spelled most like "{word}":', f" {right}", [f" {_damaged(other, draw)[0]}" for other in wrong]


def _damaged(word: str, draw: random.Random, others: tuple[str, ...] = ()) -> list[str]:
    """Three words one change of a letter away from ``word``, all different, none of them in ``others``."""
    found: list[str] = []
    while len(found) < CHOICES - 1:
        place, kind = draw.randrange(len(word)), draw.randrange(3)
        head, letter, tail = word[:place], word[place], word[place + 1 :]
        if kind == 0:
            changed = head + tail
        elif kind == 1:
            changed = head + letter + letter + tail
        else:
            changed = head + draw.choice("abcdefghijklmnopqrstuvwxyz") + tail
        if changed not in (word, "", *others, *found):
            found.append(changed)
    return found


_KINDS: dict[str, Callable[[str, random.Random], Question]] = {
    "spell": _spell,
    "reverse": _reverse,
    "count": _count,
    "delete": _delete,
    "swap": _swap,
    "similar": _similar,
}
