"""Model sizes by name, each with the hyper-parameters it is trained with."""

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

from proxybyte.errors import ProxyByteError, nearest

if TYPE_CHECKING:
    from proxybyte import ProxyByteConfig

_FOLDER = files(__package__) / "presets"


@dataclass(frozen=True)
class Preset:
    """A model size.

    Attributes:
        name: its file's name.
        summary: one line.
        backbone_config: the decoder, as ``ProxyByteConfig`` takes it; without a vocabulary, which is the compressor's.
        training: keys of a recipe, by section, that hold where recipe and command line are silent.
    """

    name: str
    summary: str
    backbone_config: dict[str, Any]
    training: dict[str, dict[str, Any]]

    def config(self, num_compressed_symbols: int = 0, **settings: Any) -> "ProxyByteConfig":
        """A model's configuration for a compressor of ``num_compressed_symbols`` symbols.

        Args:
            num_compressed_symbols: of the compressor.
            **settings: further fields of ``ProxyByteConfig``, such as ``num_pred_heads``.
        """
        from proxybyte import ProxyByteConfig  # waits for torch, which the names of presets need not

        return ProxyByteConfig(
            backbone_config=dict(self.backbone_config), num_compressed_symbols=num_compressed_symbols, **settings
        )


def preset_names() -> list[str]:
    """All names, in alphabetical order."""
    return sorted(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml"))


def load_preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        ProxyByteError: if there is none; the message gives the nearest name.
    """
    names = preset_names()
    if name not in names:
        near = nearest(name, names, 0.4)
        hint = f"did you mean {near!r}?" if near else f"choose one of {', '.join(names)}"
        raise ProxyByteError(f"there is no preset {name!r}: {hint}")
    values = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return Preset(name, values["summary"], values["backbone_config"], values["training"])
