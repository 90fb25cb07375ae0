"""Settings of recipes and experiment plans: what a section is, files, ``key.sub=value`` overrides, and messages."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import ErrorDetails

from proxybyte.errors import ProxyByteError
from proxybyte.user_paths import name_or_path, user_path

LARGEST_INTEGER = 2**63 - 1

NameOrPath = Annotated[str, AfterValidator(name_or_path)]
"""A name, or a path in which ``~`` is a home folder."""


class Section(BaseModel):
    """Keys that belong together; none but those declared, and none changes afterwards.

    Every number is finite, every integer one of 64 bits, whatever section or free-form key it stands in, and ``~`` in
    a path is a home folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    @field_validator("*", mode="after")
    @classmethod
    def _fit_for_use(cls, value: Any) -> Any:
        return _fit_for_use(value)


def _fit_for_use(value: Any) -> Any:
    """``value`` with its paths expanded.

    Raises:
        ValueError: for a number that is not finite or too large, or a path that cannot be one.
    """
    match value:
        case bool() | str() | Section():
            return value
        case int() if not -LARGEST_INTEGER - 1 <= value <= LARGEST_INTEGER:
            raise ValueError(f"should be an integer of 64 bits, not one of {value.bit_length()}")
        case float() if not math.isfinite(value):
            raise ValueError(f"should be a finite number, not {value}")
        case Path():
            return user_path(value)
        case tuple():
            return tuple(_fit_for_use(item) for item in value)
        case list():
            return [_fit_for_use(item) for item in value]
        case dict():
            return {key: _fit_for_use(item) for key, item in value.items()}
    return value


SectionT = TypeVar("SectionT", bound=Section)


def find_settings(name: str | Path, folder: Path, kind: str, shipped: Sequence[str]) -> Path:
    """Path of a file, or of a shipped one by its name.

    Raises:
        ProxyByteError: if there is neither; ``kind`` says what was looked for.
    """
    path = user_path(name)
    if path.is_file():
        return path
    if str(name) in shipped:
        return folder / f"{name}.yaml"
    raise ProxyByteError(f"no {kind} {name}: give a YAML file, or one of {', '.join(shipped)}")


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ProxyByteError: if it cannot be read or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProxyByteError(f"{path} cannot be read: {error}") from error
    try:
        return _parse_yaml(text)
    except ValueError as error:
        raise ProxyByteError(f"{path} is not valid YAML: {error}") from error


def _parse_yaml(text: str) -> Any:
    """What YAML says.

    Raises:
        ValueError: saying why it is none; PyYAML itself has an error for each number, date and depth.
    """
    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def parse_override(override: str) -> tuple[str, Any]:
    """The dotted key and the value, read as YAML, of ``key.sub=value``.

    Raises:
        ProxyByteError: if it has another form or its value is no YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ProxyByteError(f"override {override!r} is not of the form key.sub=value")
    try:
        return key, _parse_yaml(text)
    except ValueError as error:
        shown = override if len(override) <= 80 else f"{override[:80]}..."
        raise ProxyByteError(f"override {shown!r}: the value is not valid YAML: {error}") from error


def parse_settings(
    kind: type[SectionT],
    values: Mapping[str, Any],
    origin: str,
    nearest: Callable[[str], str],
    if_missing: Callable[[str], str] = lambda _: "",
) -> SectionT:
    """``values`` as a ``kind``.

    Args:
        kind: the outermost section.
        values: keys and values.
        origin: where they came from, for messages.
        nearest: what to add to the message for an unknown key: the key that may have been meant.
        if_missing: what to add for an absent key: where it may come from.

    Raises:
        ProxyByteError: for the first key that is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # The first unknown key explains others: a misspelt section makes required ones look absent.
        details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        raise ProxyByteError(f"{origin}: {_sentence(details[0], nearest, if_missing)}") from error


def _sentence(detail: ErrorDetails, nearest: Callable[[str], str], if_missing: Callable[[str], str]) -> str:
    """One sentence for one of pydantic's findings."""
    key = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {key}{nearest(key)}"
        case "missing":
            return f"key {key} is missing{if_missing(key)}"
        case "too_short":
            return f"key {key} is empty: it needs at least one"
        case "value_error":
            return f"{key}: {message}" if key else message
        case "path_type":
            return f"key {key}: should be a path, not {detail['input']!r}"
    return f"key {key}: {message[:1].lower()}{message[1:]}, not {detail['input']!r}"
