"""What goes to the Hub: model sizes, recipes, export and model card.

Names load on first use, so that finding commands stays fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .presets import Preset, load_preset, preset_names

_HOME = {"Preset": "presets", "load_preset": "presets", "preset_names": "presets"}
__all__ = ["Preset", "load_preset", "preset_names"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
