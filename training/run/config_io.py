"""Recipes on disk and overrides on the command line, checked with messages that name the key and the fix.

Also the keys of a recipe as ``train --help`` lists them: name, default and meaning, from the sections themselves.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_text
from proxybyte.hub_configs import load_preset, preset_names

from ..settings import (
    changed_keys,
    find_settings,
    flatten,
    known_fields,
    lay_over,
    parse_override,
    parse_settings,
    read_yaml,
    recorded,
    section_of,
)
from .config import MAY_CHANGE_ON_RESUME, TrainConfig

CONFIG_FILE = "config.yaml"
EARLIER_NAMES = {"plan.document_prefix": "plan.document_opening"}
"""Keys that recipes of earlier versions have, and what they are called today."""


class Origin(StrEnum):
    """Where a value came from; a later one wins over those before it."""

    DEFAULT = "default"
    PRESET = "preset"
    RECIPE = "recipe"
    COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Resolved:
    """A run's config and where each value came from.

    Attributes:
        config: the whole.
        origins: by dotted key, in the order of :func:`flatten`.
    """

    config: TrainConfig
    origins: dict[str, Origin]


def resolve(recipe: str | Path, overrides: Sequence[str] = ()) -> Resolved:
    """Read a recipe, lay it over what its preset says of training, and ``key.sub=value`` overrides over both.

    Args:
        recipe: a YAML file, or the name of a recipe that ships with the package (``"quickstart"``).
        overrides: for example ``"optimizer.lr=3e-4"``; values are read as YAML.

    Raises:
        ProxyByteError: if the file is absent or no YAML, a key is unknown (names the nearest), or a value is of the
            wrong type.
    """
    path = find_recipe(recipe)
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ProxyByteError(f"{path} must hold keys and values at its top level")
    in_recipe = _names(flatten(values))
    for override in overrides:
        _apply(values, override)
    config = parse_config(values, str(path))
    layers = {
        Origin.COMMAND_LINE: _names(parse_override(override)[0] for override in overrides),
        Origin.RECIPE: in_recipe,
        Origin.PRESET: set(flatten(_preset_training(values))),
    }
    keys = flatten(config.model_dump(mode="json"))
    return Resolved(config, {key: _origin(key, layers) for key in keys})


def _names(keys: Iterable[str]) -> set[str]:
    """Keys by the names that they have today."""
    return {EARLIER_NAMES.get(key, key) for key in keys}


def _origin(key: str, layers: Mapping[Origin, set[str]]) -> Origin:
    """The first layer that gives ``key``, or a section or dictionary that it lies in."""
    parts = key.split(".")
    ways = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return next((origin for origin, given in layers.items() if ways & given), Origin.DEFAULT)


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The config alone of :func:`resolve`."""
    return resolve(recipe, overrides).config


def find_recipe(recipe: str | Path) -> Path:
    """Path of a recipe file or of a shipped recipe's name.

    Raises:
        ProxyByteError: if there is neither.
    """
    folder = Path(str(files("proxybyte.hub_configs"))) / "recipes"
    return find_settings(recipe, folder, "recipe", sorted(entry.stem for entry in folder.glob("*.yaml")))


def parse_config(values: Mapping[str, Any], origin: str) -> TrainConfig:
    """Check ``values``, laid over what their preset says of training; ``origin`` is their source, for messages.

    Raises:
        ProxyByteError: for the first key that is wrong.
    """
    return parse_settings(TrainConfig, lay_over(_preset_training(values), values), origin)


def _preset_training(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the preset of a recipe says of training; an unknown one, which makes no model, says nothing."""
    model = values.get("model")
    name = model.get("preset") if isinstance(model, Mapping) else None
    return load_preset(str(name)).training if name in preset_names() else {}


def to_yaml(config: TrainConfig) -> str:
    """The whole config as a recipe; :func:`load_config` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def save_config(config: TrainConfig, folder: Path) -> None:
    """Write the resolved config into ``folder``."""
    write_text(folder / CONFIG_FILE, to_yaml(config))


def known_keys() -> list[str]:
    """Every key of a recipe, dotted, sections among them."""
    return list(known_fields(TrainConfig))


def finished_run(folder: Path) -> TrainConfig:
    """What a run that wrote its final model was told.

    Raises:
        ProxyByteError: if ``folder`` holds none.
    """
    if not (folder / CONFIG_FILE).is_file() or not (folder / "model" / "config.json").is_file():
        raise ProxyByteError(f"{folder} is no finished run: give the output folder of 'proxybyte train'")
    return load_config(folder / CONFIG_FILE)


def check_resumable(config: TrainConfig, saved: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run under another config.

    Args:
        config: what is asked for now.
        saved: what the checkpoint was made with, as ``TrainConfig.model_dump(mode="json")``.
        folder: the run folder, for the message.

    Raises:
        ProxyByteError: naming each key that differs and may not.
    """
    old, (new, at_default) = flatten(saved), recorded(config)
    changed = [
        f"{key}={json.dumps(old.get(key))} (now {json.dumps(new.get(key))})"
        for key in changed_keys(old, new, at_default)
        if not may_change(key)
    ]
    if changed:
        raise ProxyByteError(
            f"{folder} holds a run with {', '.join(changed)}: restore what changed, or choose another output folder"
        )


def may_change(key: str) -> bool:
    """Whether a run that goes on may have another value of ``key``."""
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in MAY_CHANGE_ON_RESUME)


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one ``key.sub=value`` in nested ``values``."""
    key, value = parse_override(override)
    *sections, leaf = key.split(".")
    inner = values
    for section in sections:
        if not isinstance(inner.setdefault(section, {}), dict):
            raise ProxyByteError(f"override {override!r}: {section} is a single value, not a section")
        inner = inner[section]
    inner[leaf] = value


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
