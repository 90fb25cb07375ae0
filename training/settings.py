"""Settings of recipes and experiment plans: what a section is, files, ``key.sub=value`` overrides, and messages."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from proxybyte.errors import ProxyByteError


class Section(BaseModel):
    """Keys that belong together; none but those declared, and none changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SectionT = TypeVar("SectionT", bound=Section)


def find_settings(name: str | Path, folder: Path, kind: str, shipped: Sequence[str]) -> Path:
    """Path of a file, or of a shipped one by its name.

    Raises:
        ProxyByteError: if there is neither; ``kind`` says what was looked for.
    """
    if Path(name).is_file():
        return Path(name)
    if str(name) in shipped:
        return folder / f"{name}.yaml"
    raise ProxyByteError(f"no {kind} {name}: give a YAML file, or one of {', '.join(shipped)}")


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ProxyByteError: if it cannot be read or is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ProxyByteError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ProxyByteError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ProxyByteError(f"{path} is nested too deep: settings have a few levels") from error


def parse_override(override: str) -> tuple[str, Any]:
    """The dotted key and the value, read as YAML, of ``key.sub=value``.

    Raises:
        ProxyByteError: if it has another form or its value is no YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ProxyByteError(f"override {override!r} is not of the form key.sub=value")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProxyByteError(f"override {override!r}: the value is not valid YAML") from error


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
