"""Content that is not what it should be: bytes flipped, cut, doubled, and values of JSON that nobody expects."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

ODD_BYTES = (
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n\n\n", b"{", b"}", b"[" * 5_000, b'"' * 3, b"\\ud800",
    b"1e999", b"-1", b"9" * 5_000,
    b"NaN", b"null", b"true", b"../../x", b"/etc/passwd", b"&a [*a]", b"!!python/name:os.x",
    "\u2028".encode(), "é".encode("latin-1"), b"PAR1", b"\x1f\x8b\x08", b"(\xb5/\xfd",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "",
    " ", "x", "\x00", "\ud800", "../x", "/x", [], [None], [[]], {}, {"a": None}, "9" * 30, "true", ["x"] * 3,
    [[[[[[[[1]]]]]]]],
)  # fmt: skip


def damaged(content: bytes, rng: random.Random) -> bytes:
    """``content`` with one to four things wrong."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(_BYTES)(content, rng)
    return content


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """JSON that is still JSON, with one to three values that nobody expects; now and then not even that."""
    if rng.random() < 0.25:
        return damaged(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _other(copy.deepcopy(value), rng)
    return json.dumps(value).encode()


def damaged_lines(content: bytes, rng: random.Random) -> bytes:
    """JSON lines, some of them damaged either way."""
    lines = content.split(b"\n")
    for _ in range(rng.choice((1, 2, 3))):
        place = rng.randrange(len(lines))
        try:
            lines[place] = damaged_json(lines[place], rng)
        except ValueError:
            lines[place] = damaged(lines[place], rng)
    return b"\n".join(lines)


def _flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\x01"
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _without(content: bytes, rng: random.Random) -> bytes:
    begin, end = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    return content[:begin] + content[min(end, begin + 64) :]


def _again(content: bytes, rng: random.Random) -> bytes:
    begin, end = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    return content[:end] + content[begin:end] + content[end:]


def _odd(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice(ODD_BYTES) + content[place + rng.choice((0, 0, 1, 8)) :]


def _noise(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(rng.choice((1, 4, 64))) + content[place:]


def _nothing_of_it(_content: bytes, rng: random.Random) -> bytes:
    return rng.choice(ODD_BYTES)


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _cut, _without, _again, _odd, _odd, _noise, _nothing_of_it,
)  # fmt: skip


def _other(value: Any, rng: random.Random) -> Any:
    """``value`` with one node of its tree replaced, removed, or given under another name too."""
    nodes = list(_nodes(value))
    if not nodes or rng.random() < 0.03:
        return rng.choice(ODD_VALUES)
    holder, key = rng.choice(nodes)
    what = rng.random()
    if what < 0.7:
        holder[key] = rng.choice(ODD_VALUES)
    elif what < 0.85:
        del holder[key]
    elif isinstance(holder, dict):
        holder[rng.choice(("x", "", "\x00", "type", f"{key}_"))] = holder[key]
    else:
        holder.insert(key, holder[key])
    return value


def _nodes(value: Any) -> Any:
    """Every place in a tree: what holds it, and the key."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(pairs):
        yield value, key
        yield from _nodes(each)
