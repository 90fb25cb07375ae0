"""Lines of chat data are lines of JSON as every other reader takes them."""

import gzip
import json

import numpy as np
import pytest

from proxybyte import build_tokenizer
from proxybyte.errors import ProxyByteError
from proxybyte.training.chat import read_chats


def chat(text: str) -> str:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
    return json.dumps({"messages": messages}, ensure_ascii=False)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x7f"])
def test_line_separators_of_unicode_stand_inside_a_message(tmp_path, character):
    path, escaped = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    text = f"a{character}b"
    path.write_bytes(f"\ufeff{chat(text)}\r\n\n{chat('second')}\n".encode())
    escaped.write_text("".join(json.dumps(json.loads(chat(each))) + "\n" for each in (text, "second")))
    tokenizer = build_tokenizer(chat=True)
    found, expected = read_chats(path, tokenizer), read_chats(escaped, tokenizer)
    assert len(found) == 2
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.input_ids, other.input_ids) and np.array_equal(one.labels, other.labels)


def test_archives_are_read_and_damage_is_named(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    stored = gzip.compress(f"{chat('a')}\n{chat('b')}\n".encode())
    path.write_bytes(stored + bytes(100))
    assert len(read_chats(path, build_tokenizer(chat=True))) == 2
    path.write_bytes(stored[:-10])
    with pytest.raises(ProxyByteError, match=r"a\.jsonl\.gz, line \d, cannot be read"):
        read_chats(path, build_tokenizer(chat=True))


@pytest.mark.parametrize(
    ("line", "message"),
    [(b"\xff", "byte 0 of the line is not UTF-8"), (b"[" * 100_000, "is no object with a list of messages")],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(chat("a").encode() + b"\n\n" + line)
    with pytest.raises(ProxyByteError, match=rf"a\.jsonl:3: {message}"):
        read_chats(path, build_tokenizer(chat=True))
