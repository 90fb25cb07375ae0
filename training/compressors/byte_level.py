"""What a ``tokenizer.json`` says about bytes: what each of its symbols spells, and a faster program with equal ids.

Byte-level BPE (Radford et al., GPT-2) writes byte ``b`` as one printable character and merges those. Such a
tokenizer is the same function as a tiktoken ``Encoding`` when

* one regular expression splits the text into pieces, and it means the same to both regex engines;
* a merge is applied to two neighbours exactly when their joined bytes are a token, lowest rank first, leftmost first.

tokenizers asks of two neighbours that the *pair* be in its list of merges, tiktoken only that their join be a token.
The two agree for token ``t`` if ``t`` arises when its own bytes are merged alone: while two neighbours tile the bytes
of ``t``, no merge has crossed its ends, so what happened inside is what happens when ``t`` stands alone, where the
next and last step must be its listed pair. They also agree if every split of ``t`` into two tokens is a listed pair.
:func:`plan_ranks` checks one or the other for each token, so equality holds by construction; anything else is refused
with the reason and runs on tokenizers.
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from tokenizers import models

CODE_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+(?:[\r\n]+[ \t]*)?|[\r\n]+[ \t]*|\s+"
"""Ours: punctuation takes the line end and the next line's indent with it: 4.4 bytes a symbol on Python source where
GPT-2's has 3.8, both of 16,384 symbols. No look-around, so that any regex engine runs in linear time."""
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT2_ONE_DIGIT_PATTERN = (
    # Digits split off first: whitespace before one ends its segment, as before the end of the text.
    r"""\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"""
)
GPT4_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama 3's too."""
QWEN2_PATTERN = GPT4_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
_WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]%s[\p{Ll}\p{Lm}\p{Lo}\p{M}]%s(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_PATTERN = (
    f"{_WORD % ('*', '+')}|{_WORD % ('+', '*')}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""GPT-4o's and gpt-oss's."""
# What Oniguruma (tokenizers) and Rust's regex (tiktoken) read alike. Not among it: ^ $ . \w \d \b, scripts, nested
# classes, a "+" after {m,n} (possessive in one, a repetition in the other), flags but for this one group, whose
# letters both fold alike.
_CONTRACTIONS = r"\(\?i:(?:'s\|'t\|'re\|'ve\|'m\|'ll\|'d|\[sdmt\]\|ll\|ve\|re)\)"
# The one look-ahead: tiktoken keeps a state for each character before it, which only whitespace must be watched for.
_LOOK_AHEAD = r"\\s\+\(\?!\\S\)"
_CATEGORY = r"\\[pP]\{[LMNPSZ][a-z]?\}"
_CLASS = rf"\[\^?(?:{_CATEGORY}|\\[sSrnt/\-]|[^\\\[\]&])+\]"
_SAME_IN_BOTH = re.compile(
    rf"(?:{_CONTRACTIONS}|{_LOOK_AHEAD}|{_CLASS}|{_CATEGORY}|\\[sSrnt/.?*+()|\-]|\((?!\?)|\(\?:|[)|]|[?*+]\+?"
    r"|\{\d+(?:,\d*)?\}(?!\+)|[^\\\[\]^$.{}()|?*+])*"
)


@cache
def byte_alphabet() -> dict[str, int]:
    """The byte that each of GPT-2's 256 printable characters stands for."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


class NotByteLevel(Exception):
    """Why a tokenizer cannot run as a tiktoken ``Encoding``."""


@dataclass(frozen=True)
class RankPlan:
    """A byte-level BPE as tiktoken wants it.

    Attributes:
        pattern: regular expression of the pieces.
        ranks: merge priority of each token's bytes; 0 to 255 are the single bytes.
        code_of_rank: uint32 of shape ``(len(ranks),)``; the tokenizer's id of the token of each rank.
    """

    pattern: str
    ranks: dict[bytes, int]
    code_of_rank: np.ndarray

    def encode_byte_tokens(self, data: bytes) -> np.ndarray:
        """One id for each byte, whatever the bytes are."""
        return self.code_of_rank[np.frombuffer(data, dtype=np.uint8)]


def spelled_bytes(spec: dict) -> list[bytes | None] | None:
    """The bytes that each id spells, None for specials and unused ids; None for the whole if it is not byte-level.

    Args:
        spec: what the tokenizers library writes as ``tokenizer.json``.

    Returns:
        Entry ``i`` belongs to id ``i``; the list is as long as the highest id + 1.
    """
    if not _is_byte_level(spec.get("decoder")) or spec["model"].get("type") != "BPE":
        return None
    alphabet = byte_alphabet()
    vocab: dict[str, int] = spec["model"]["vocab"]
    added = {entry["id"]: entry for entry in spec["added_tokens"]}
    table: list[bytes | None] = [None] * (max([*vocab.values(), *added], default=-1) + 1)
    for token, code in vocab.items():
        if code not in added:
            if not all(character in alphabet for character in token):
                return None
            table[code] = bytes(alphabet[character] for character in token)
    for code, entry in added.items():
        table[code] = None if entry["special"] else _added_bytes(entry["content"], alphabet)
    return table


def _added_bytes(content: str, alphabet: dict[str, int]) -> bytes:
    # The ByteLevel decoder reads an added token through the alphabet if it can, else as text.
    if all(character in alphabet for character in content):
        return bytes(alphabet[character] for character in content)
    return content.encode()


def _is_byte_level(decoder: dict | None) -> bool:
    if decoder is None:
        return False
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return [step["type"] for step in steps] == ["ByteLevel"]


def plan_ranks(spec: dict, spelled: list[bytes | None]) -> RankPlan:
    """The tokenizer as ranks and a pattern.

    Args:
        spec: a byte-level BPE, as the tokenizers library writes it.
        spelled: its :func:`spelled_bytes`.

    Raises:
        NotByteLevel: if equal ids cannot be guaranteed; the message says why.
    """
    model = spec["model"]
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise NotByteLevel(f"its model uses {option}")
    pattern = _pattern(spec["pre_tokenizer"])
    ranks, codes = _merge_order(model, spelled)
    _check_merges(model)
    extra = set(model["vocab"].values()) - set(codes.tolist()) - {entry["id"] for entry in spec["added_tokens"]}
    if extra and model.get("ignore_merges"):
        raise NotByteLevel(f"{len(extra)} of its tokens arise from no merge, yet stand for whole pieces")
    return RankPlan(pattern, ranks, codes)


def _pattern(pre_tokenizer: dict | None) -> str:
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = [step["type"] for step in steps]
    if not kinds or kinds[-1] != "ByteLevel" or kinds.count("ByteLevel") != 1:
        raise NotByteLevel("its pre-tokenizer does not end in ByteLevel")
    if steps[-1]["add_prefix_space"]:
        raise NotByteLevel("it puts a space before the text")
    if kinds == ["ByteLevel"] and steps[0]["use_regex"]:
        return GPT2_PATTERN
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1]["use_regex"]:
        return GPT2_ONE_DIGIT_PATTERN
    if kinds != ["Split", "ByteLevel"] or steps[1]["use_regex"]:
        raise NotByteLevel(f"it splits text in {len(steps)} steps ({', '.join(kinds)})")
    split = steps[0]
    pattern = split["pattern"].get("Regex")
    if split["behavior"] != "Isolated" or split["invert"] or pattern is None:
        raise NotByteLevel("it splits text by other means than the matches of one regular expression")
    if not _SAME_IN_BOTH.fullmatch(pattern):
        raise NotByteLevel("its regular expression uses constructs that differ between regex engines")
    return pattern


def _merge_order(model: dict, spelled: list[bytes | None]) -> tuple[dict[bytes, int], np.ndarray]:
    """Ranks in the order of the merges, bytes first, and the id of each rank."""
    vocab: dict[str, int] = model["vocab"]
    ranks: dict[bytes, int] = {}
    codes: list[int] = []
    for character, byte in sorted(byte_alphabet().items(), key=lambda item: item[1]):
        if character not in vocab:
            raise NotByteLevel(f"it has no symbol for byte {byte}")
        ranks[bytes([byte])] = byte
        codes.append(vocab[character])
    for left, right in model["merges"]:
        joined = spelled[vocab[left + right]]
        if joined is None:
            raise NotByteLevel(f"the merge {left} {right} makes a special token")
        if ranks.setdefault(joined, len(codes)) == len(codes):
            codes.append(vocab[left + right])
        elif ranks[joined] != len(codes) - 1:
            raise NotByteLevel(f"the merges of {left + right} stand at different places in its list")
    return ranks, np.array(codes, dtype=np.uint32)


def _check_merges(model: dict) -> None:
    """Each token arises alone from its own bytes, or all its splits are merges (see the top of this file)."""
    vocab: dict[str, int] = model["vocab"]
    merges = [(left, right) for left, right in model["merges"]]
    pairs = set(merges)
    alone = models.BPE(vocab=vocab, merges=merges)
    for token in {left + right for left, right in merges}:
        if [part.id for part in alone.tokenize(token)] == [vocab[token]]:
            continue
        splits = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        if any(split not in pairs and split[0] in vocab and split[1] in vocab for split in splits):
            raise NotByteLevel(f"the token {token!r} does not arise from its own bytes")
