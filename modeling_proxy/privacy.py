"""No file that can leave this machine says whose machine it was: no path, user or host name.

Transformers and PEFT write where a model was loaded from as it was typed. :func:`forget_paths` takes that out of a
folder before it is put in its place; :func:`private_words_in` is the scan that shows it. No model needs this module,
so it does not travel to the Hub.
"""

import getpass
import json
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_DROPPED = ("_name_or_path",)
"""Keys that Transformers fills in again when it loads."""
_SHORTENED = ("name_or_path", "base_model_name_or_path")
"""Keys that may hold a Hub name, which says where a base is to be found: of a local path the last part stays."""
_LEAST_LETTERS = 5
"""Names of users and hosts that are shorter (``root``, ``user``) are words that stand in any text."""


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
    """Every ``FILE: WORD`` where a file under ``folder`` holds the home folder, user or host name, or one of ``more``.

    Args:
        folder: what is scanned; every file of it, the binary ones too.
        more: other words to look for, such as the folder that the work was done in.
    """
    names = [name for name in (getpass.getuser(), socket.gethostname()) if len(name) >= _LEAST_LETTERS]
    words = [*more, *names] + ([str(Path.home())] if len(str(Path.home())) >= _LEAST_LETTERS else [])
    patterns = {word: re.compile(rb"(?<![A-Za-z0-9])" + re.escape(word.encode())) for word in words}
    found = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = path.read_bytes()
        found += [
            f"{path.relative_to(folder)}: {word}" for word, pattern in patterns.items() if pattern.search(content)
        ]
    return found


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
