"""Recipes on disk and overrides on the command line, checked with messages that name the key and the fix."""

import difflib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_text

from ..settings import find_settings, parse_override, parse_settings, read_yaml
from .config import MAY_CHANGE_ON_RESUME, TrainConfig

CONFIG_FILE = "config.yaml"


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe and lay ``key.sub=value`` overrides over it.

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
    for override in overrides:
        _apply(values, override)
    return parse_config(values, str(path))


def find_recipe(recipe: str | Path) -> Path:
    """Path of a recipe file or of a shipped recipe's name.

    Raises:
        ProxyByteError: if there is neither.
    """
    folder = Path(str(files("proxybyte.hub_configs"))) / "recipes"
    return find_settings(recipe, folder, "recipe", sorted(entry.stem for entry in folder.glob("*.yaml")))


def parse_config(values: Mapping[str, Any], origin: str) -> TrainConfig:
    """Check ``values``; ``origin`` says in messages where they came from.

    Raises:
        ProxyByteError: for the first key that is wrong.
    """
    return parse_settings(TrainConfig, values, origin, _nearest)


def save_config(config: TrainConfig, folder: Path) -> None:
    """Write the resolved config into ``folder``; :func:`load_config` reads it back to an equal one."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_text(folder / CONFIG_FILE, text)


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
    old, new = flatten(saved), flatten(config.model_dump(mode="json"))
    changed = [
        f"{key}={json.dumps(old.get(key))} (now {json.dumps(new.get(key))})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _may_change(key)
    ]
    if changed:
        raise ProxyByteError(
            f"{folder} holds a run with {', '.join(changed)}: restore what changed, or choose another output folder"
        )


def _may_change(key: str) -> bool:
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in MAY_CHANGE_ON_RESUME)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


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


def known_keys(model: type[BaseModel] = TrainConfig, prefix: str = "") -> list[str]:
    """Every key of the config, dotted, sections among them."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
    return keys


def _nearest(key: str) -> str:
    """Suggestion of the nearest known key: by the whole key, then by its last part in any section."""
    keys = known_keys()
    matches = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    if not matches:
        by_leaf = {other.rpartition(".")[2]: other for other in reversed(keys)}
        matches = [by_leaf[leaf] for leaf in difflib.get_close_matches(key.rpartition(".")[2], by_leaf, n=1)]
    return (
        f": did you mean {matches[0]}?" if matches else f": the keys are {', '.join(k for k in keys if '.' not in k)}"
    )
