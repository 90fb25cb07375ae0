"""Files of settings and ``key.sub=value`` overrides, read alike for recipes and for experiment plans."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from proxybyte.errors import ProxyByteError


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
