"""Settings of recipes and experiment plans: what a section is, files, ``key.sub=value`` overrides, and messages."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from proxybyte.errors import ProxyByteError, nearest
from proxybyte.user_paths import name_or_path, user_path

LARGEST_INTEGER = 2**63 - 1
_LEAST_LETTERS = 4
"""Shorter keys are found in any sentence."""

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


Choices = Sequence[Sequence[Sequence[str]]]
"""Groups of keys of which a section has one."""


def lay_over(values: Mapping[str, Any], changes: Mapping[str, Any], choices: Choices = ()) -> dict[str, Any]:
    """``values`` with ``changes``, section by section; anything that is no section is replaced whole.

    Keys that exclude each other are one choice: the change that makes another replaces what the earlier one brought.
    """
    merged = dict(values)
    for alternatives in choices:
        chosen = [group for group in alternatives if any(changes.get(key) is not None for key in group)]
        if len(chosen) == 1:
            others = {key for group in alternatives for key in group} - set(chosen[0])
            merged = {key: value for key, value in merged.items() if key not in others}
    for key, change in changes.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(change, Mapping)
        merged[key] = lay_over(old, change, choices) if both else change  # type: ignore[arg-type]
    return merged


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Sections from dotted keys: ``{"a.b": 1}`` becomes ``{"a": {"b": 1}}``."""
    values: dict[str, Any] = {}
    for key, value in dotted.items():
        *sections, leaf = key.split(".")
        inner: dict[str, Any] = {leaf: value}
        for section in reversed(sections):
            inner = {section: inner}
        values = lay_over(values, inner)
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def recorded(section: BaseModel) -> tuple[dict[str, Any], set[str]]:
    """Every dotted key of a section with its value as plain data, and the keys that are at their defaults."""
    every, chosen = (flatten(section.model_dump(mode="json", exclude_defaults=short)) for short in (False, True))
    return every, every.keys() - chosen.keys()


def changed_keys(saved: Mapping[str, Any], now: Mapping[str, Any], at_default: Collection[str]) -> list[str]:
    """Keys whose value is not the one that was saved.

    A key that is not among the saved ones did not exist when they were: what a later version of the package adds must
    not orphan work, so it may be missing where it is at its default.
    """
    return [
        key
        for key in sorted(saved.keys() | now.keys())
        if saved.get(key) != now.get(key) and (key in saved or key not in at_default)
    ]


def parse_settings(
    kind: type[SectionT],
    values: Mapping[str, Any],
    origin: str,
    if_missing: Callable[[str], str] = lambda _: "",
) -> SectionT:
    """``values`` as a ``kind``.

    Args:
        kind: the outermost section.
        values: keys and values.
        origin: where they came from, for messages.
        if_missing: what to add for an absent key: where it may come from.

    Raises:
        ProxyByteError: for the first key that is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # The first unknown key explains others: a misspelt section makes required ones look absent.
        details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        raise ProxyByteError(f"{origin}: {_sentence(details[0], kind, if_missing)}") from error


def _sentence(detail: ErrorDetails, kind: type[Section], if_missing: Callable[[str], str]) -> str:
    """One sentence for one of pydantic's findings."""
    key = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {key}{_meant(key, kind)}"
        case "missing":
            return f"key {key} is missing{if_missing(key)}"
        case "too_short":
            return f"key {key} is empty: it needs at least one"
        case "model_type" | "model_attributes_type":
            keys = list(section_at(kind, key).model_fields)
            meant = _described(key, known_fields(kind)) if "_" in key else None
            hint = f"did you mean {meant}?" if meant else f"set {key}.{keys[0]} or another of its keys"
            return f"key {key} is a section of {', '.join(keys)}, not a value: {hint}"
        case "value_error":
            return f"{key}: {message}" if key else message
        case "path_type":
            return f"key {key}: should be a path, not {detail['input']!r}"
    return f"key {key}: {message[:1].lower()}{message[1:]}, not {detail['input']!r}"


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also where it is one of a dictionary of sections; ``None`` for a value."""
    choices = (annotation, *get_args(annotation))
    return next((kind for kind in choices if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def section_at(kind: type[BaseModel], key: str) -> type[BaseModel]:
    """The innermost section on the way to a dotted key; names of a dictionary's entries stay in their section."""
    for part in key.split("."):
        field = kind.model_fields.get(part)
        kind = (section_of(field.annotation) if field else None) or kind
    return kind


def known_fields(kind: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Every key of a section by its dotted name, sections among them, in the order in which they are declared."""
    fields: dict[str, FieldInfo] = {}
    for name, field in kind.model_fields.items():
        fields[prefix + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            fields |= known_fields(field.annotation, f"{prefix}{name}.")
    return fields


def _meant(key: str, kind: type[Section]) -> str:
    """The end of the message for an unknown key: the one that may have been meant, else those that there are.

    First what reads alike in full, then what the section's own keys say that they are (``optimizer.learning_rate`` is
    ``optimizer.lr``, the peak learning rate), then what ends alike in any section.
    """
    section, _, leaf = key.rpartition(".")
    fields = known_fields(kind)
    within = section_at(kind, section)
    own = {f"{section}.{name}" if section else name: field for name, field in within.model_fields.items()}
    names = [*own, *(name for name in fields if name not in own)]
    by_leaf = {name.rpartition(".")[2]: name for name in reversed(names)}
    alike = nearest(leaf, by_leaf)
    found = (
        nearest(key, names, 0.85)
        or _described(leaf, own)
        or nearest(key, names, 0.75)
        or (by_leaf[alike] if alike else None)
        or _described(leaf, fields)
    )
    return f": did you mean {found}?" if found else f": the keys are {', '.join(within.model_fields)}"


def _described(leaf: str, fields: Mapping[str, FieldInfo]) -> str | None:
    """The first of ``fields`` whose meaning holds the words of ``leaf``."""
    words = leaf.replace("_", " ").lower()
    if len(words) < _LEAST_LETTERS:
        return None
    return next((name for name, field in fields.items() if words in (field.description or "").lower()), None)
