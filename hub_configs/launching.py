"""Configurations for ``accelerate launch`` by name: a file each in ``accelerate/``, whose first line says what for."""

from importlib.resources import files
from pathlib import Path

from proxybyte.errors import ProxyByteError, nearest

_FOLDER = Path(str(files(__package__))) / "accelerate"


def launch_configs() -> dict[str, str]:
    """What each is for, by name."""
    first = {path.stem: path.read_text(encoding="utf-8").split("\n")[0] for path in _FOLDER.glob("*.yaml")}
    return {name: line.removeprefix("# ") for name, line in sorted(first.items())}


def launch_config(name: str) -> Path:
    """Where the configuration called ``name`` lies.

    Raises:
        ProxyByteError: if there is none; the message gives the nearest name.
    """
    names = list(launch_configs())
    if name not in names:
        near = nearest(name, names, 0.4)
        hint = f"did you mean {near}?" if near else f"the names are {', '.join(names)}"
        raise ProxyByteError(f"no configuration is called '{name}': {hint}")
    return _FOLDER / f"{name}.yaml"
