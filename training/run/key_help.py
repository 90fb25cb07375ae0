"""The keys of a recipe as ``train --help`` lists them: name, default and meaning, from the sections themselves."""

import textwrap
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..settings import known_fields, section_of
from .config import TrainConfig

_KEY_WIDTH, _DEFAULT_WIDTH, _WIDTH = 33, 13, 112


def key_table() -> str:
    """One line a key, under a line for each section."""
    lines = ["keys of a recipe, each also key=value on the command line, with default and meaning:"]
    for key, field in known_fields(TrainConfig).items():
        section = section_of(field.annotation)
        lines += [f"  {key}: {_first_line(section)}"] if section else _key(key, field)
    return "\n".join(lines) + "\n"


def _first_line(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").partition("\n")[0].replace("`", "").rstrip(".")


def _key(key: str, field: FieldInfo) -> list[str]:
    choices = _choices(field.annotation)
    meaning = (field.description or "") + (f" ({', '.join(choices)})" if choices else "")
    head = f"    {key:<{_KEY_WIDTH}} {_default(field):<{_DEFAULT_WIDTH}} "
    return textwrap.wrap(
        meaning, _WIDTH, initial_indent=head, subsequent_indent=" " * (_KEY_WIDTH + _DEFAULT_WIDTH + 6)
    )


def _choices(annotation: Any) -> list[str]:
    """The values of an enumeration, also inside a list or beside ``None``."""
    kinds = [annotation, *get_args(annotation)]
    return next(
        ([str(one.value) for one in kind] for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)), []
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return _spell(field.default)


def _spell(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case Enum() | Path():
            return str(getattr(value, "value", value))
        case tuple():
            return f"[{', '.join(map(_spell, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
