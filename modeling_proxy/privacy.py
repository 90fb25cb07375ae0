"""No file that can leave this machine says whose machine it was: no path, user or host name; no message holds a token.

Transformers and PEFT write where a model was loaded from as it was typed. :func:`forget_paths` takes that out of a
folder before it is put in its place; :func:`scan` reads what is about to leave; :func:`without_secrets` takes tokens
out of what is said. No model needs this module, so it does not travel to the Hub.
"""

import getpass
import gzip
import json
import logging
import mmap
import os
import re
import socket
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import IO, Any

from .errors import ProxyByteError

_DROPPED = ("_name_or_path",)
"""Keys that Transformers fills in again when it loads."""
_SHORTENED = ("name_or_path", "base_model_name_or_path")
"""Keys that may hold a Hub name, which says where a base is to be found: of a local path the last part stays."""
_LEAST_LETTERS = 5
"""Names of users and hosts that are shorter (``root``, ``user``) are words that stand in any text."""
_HOMES = re.compile(
    rb"(?<![A-Za-z0-9._~-])(?:/home/|/Users/|[A-Za-z]:\\\\?Users\\\\?)[A-Za-z][A-Za-z0-9._-]{2,31}(?=[/\\])"
)
"""Home folders, with somebody's name and something in them."""
_TOKENS = re.compile(
    rb"(?<![A-Za-z0-9_])(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,}"
    rb"|glpat-[A-Za-z0-9_-]{20,}|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}|pypi-AgE[A-Za-z0-9_-]{50,}"
    rb"|xox[abprs]-[A-Za-z0-9-]{20,}|AKIA[0-9A-Z]{16}(?![A-Za-z0-9])|AIza[A-Za-z0-9_-]{35})"
    rb"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
)
"""Of Hugging Face, GitHub, GitLab, OpenAI and Anthropic, PyPI, Slack, AWS, Google; and private keys."""


_BLOCK, _LONGEST_WORD = 1 << 24, 1 << 12
_SECRET_NAMES = ("TOKEN", "KEY", "SECRET", "PASSWORD")
"""Endings of the names of environment variables whose values are nobody else's."""
_LEAST_SECRET = 8
_CREDENTIALS = re.compile(r"(:/{1,2})[^\s/@:]*:[^\s/@]+(?=@)|(?i:(bearer ))[^\s'\",]+")
"""``USER:PASSWORD`` in an address, of which a path keeps one slash; what stands in the header of a request."""


def without_secrets(text: str) -> str:
    """``text`` with access tokens, passwords in addresses, and the values of secret variables left out.

    What the program says goes through this: errors and the log, which people copy into reports of faults.
    """
    secrets = (value for name, value in os.environ.items() if name.upper().endswith(_SECRET_NAMES))
    for secret in sorted((value for value in secrets if len(value) >= _LEAST_SECRET), key=len, reverse=True):
        text = text.replace(secret, "...")
    text = _CREDENTIALS.sub(lambda found: f"{found[1] or found[2]}...", text)
    shortened = _TOKENS.sub(lambda found: found.group()[:6] + b"...", text.encode("utf-8", "surrogatepass"))
    return shortened.decode("utf-8", "surrogatepass")


class Discreet(logging.Filter):
    """Takes secrets out of what a handler writes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it through, without them."""
        record.msg, record.args = without_secrets(record.getMessage()), None
        return True


def keep_logs_discreet() -> None:
    """Put :class:`Discreet` on what writes the log of this process."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(each, Discreet) for each in handler.filters):
            handler.addFilter(Discreet())


def shown_name(text: str) -> str:
    """A Hub name as it is, of a path on this machine the last part."""
    path = Path(text)
    local = path.is_absolute() or text.startswith((".", "~")) or path.exists() or text.count("/") > 1
    return path.name if local else text


def forget_paths(folder: Path) -> None:
    """Take paths of this machine out of the JSON files and model cards under ``folder``."""
    for path in sorted(folder.rglob("*.json")):
        text = path.read_text(encoding="utf-8")
        if not any(f'"{key}"' in text for key in (*_DROPPED, *_SHORTENED)):
            continue
        content = json.loads(text)
        paths = {value: shown_name(value) for value in _local_paths(content)}
        kept = _without_paths(content)
        if kept != content:
            path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        card = path.with_name("README.md")  # PEFT's names the base as its adapter_config.json does
        if paths and card.is_file():
            words = card.read_text(encoding="utf-8")
            for value, short in paths.items():
                words = words.replace(value, short)
            card.write_text(words, encoding="utf-8")


def private_words_in(folder: Path, more: Iterable[str] = ()) -> list[str]:
    """Every ``FILE: WORD`` of :func:`scan` that tells of this machine or of its user.

    Args:
        folder: what is scanned; every file of it, the binary ones too.
        more: other words to look for, such as the folder that the work was done in.
    """
    return [f"{found.file}: {found.word}" for found in scan(folder, more) if found.kind is not Kind.TOKEN]


class Kind(StrEnum):
    """What must not leave."""

    PATH = "path"
    NAME = "user or host name"
    TOKEN = "access token"


@dataclass(frozen=True)
class Finding:
    """Something private in a file.

    Attributes:
        file: path in the folder.
        kind: what it is.
        word: what was found; of a token the beginning alone, as a message must not hand it on.
    """

    file: str
    kind: Kind
    word: str

    def __str__(self) -> str:
        return f"{self.file} holds the {self.kind} {self.word!r}"


def scan(folder: Path, more: Iterable[str] = (), allowed: Collection[str] = ()) -> list[Finding]:
    """Paths, user and host names and tokens in the files under ``folder``, in their names too.

    Every file is read whole, weights too; text inside parquet, gzip and zstandard files is read as such. Found are the
    home folder, user and host name of whoever runs this, home folders of anybody (``/home/NAME``, ``/Users/NAME``),
    and access tokens of the kinds in :data:`_TOKENS`.

    Args:
        folder: what is scanned.
        more: other words to look for, such as the folder that the work was done in.
        allowed: words that are no secret.

    Returns:
        In the order of the files; each word of a file once.

    Raises:
        ProxyByteError: if a compressed file is damaged, so that nobody knows what it holds.
    """
    words = dict.fromkeys(more, Kind.PATH)
    words |= {name: Kind.NAME for name in (getpass.getuser(), socket.gethostname()) if len(name) >= _LEAST_LETTERS}
    words |= {str(Path.home()): Kind.PATH} if len(str(Path.home())) >= _LEAST_LETTERS else {}
    patterns = [(kind, re.compile(rb"(?<![A-Za-z0-9])" + spelled)) for kind, spelled in _spelled(words)]
    patterns += [(Kind.PATH, _HOMES), (Kind.TOKEN, _TOKENS)]
    found: dict[Finding, None] = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        name = path.relative_to(folder).as_posix()
        for text in chain([name.encode()], _texts(path)):
            for kind, pattern in patterns:
                for match in pattern.finditer(text):
                    word = match.group().decode("utf-8", "replace")
                    if word not in allowed:
                        found[Finding(name, kind, _shown(kind, word))] = None
    return list(found)


def _spelled(words: Mapping[str, Kind]) -> list[tuple[Kind, bytes]]:
    """Each word as text has it, and as JSON may."""
    spellings = {word: {word, json.dumps(word)[1:-1]} for word in words}
    return [(words[word], re.escape(each.encode())) for word, all_ in spellings.items() for each in sorted(all_)]


def _shown(kind: Kind, word: str) -> str:
    return f"{word[:6]}..." if kind is Kind.TOKEN else word


def _texts(path: Path) -> Iterator[bytes | mmap.mmap]:
    """What a file holds: its bytes, and what a reader of its format would get out of them."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
        unpacked = _UNPACKED.get(path.suffix)
        if unpacked is None:
            return
        try:
            yield from unpacked(path)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise ProxyByteError(
                f"{path} cannot be unpacked, so nobody knows what it holds: remove it ({error})"
            ) from error


def _parquet(path: Path) -> Iterator[bytes]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        for column in batch.columns:
            yield from (buffer.to_pybytes() for buffer in column.buffers() if buffer is not None)


def _gzip(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as file:
        yield from _blocks(file)


def _blocks(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """What is unpacked, never all at once: each block with the end of the one before, where a word may begin."""
    end = b""
    while block := file.read(_BLOCK):
        yield end + block
        end = (end + block)[-_LONGEST_WORD:]


def _zstandard(path: Path) -> Iterator[bytes]:
    import zstandard

    try:
        with zstandard.open(path) as file:
            yield from _blocks(file)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


_UNPACKED: Mapping[str, Callable[[Path], Iterator[bytes]]] = {
    ".parquet": _parquet,
    ".gz": _gzip,
    ".zst": _zstandard,
}


def _local_paths(content: Any) -> set[str]:
    """Values of the shortened keys that are paths of this machine."""
    if isinstance(content, list):
        return set().union(*map(_local_paths, content))
    if not isinstance(content, dict):
        return set()
    mine = {value for key, value in content.items() if key in _SHORTENED and isinstance(value, str)}
    return {value for value in mine if shown_name(value) != value}.union(*map(_local_paths, content.values()))


def _without_paths(content: Any) -> Any:
    if isinstance(content, list):
        return [_without_paths(each) for each in content]
    if not isinstance(content, dict):
        return content
    return {
        key: shown_name(value) if key in _SHORTENED and isinstance(value, str) else _without_paths(value)
        for key, value in content.items()
        if key not in _DROPPED
    }
