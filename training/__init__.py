"""From text to a trained model: compressors, the prepared dataset, the stream plan, the training loop, experiments.

The public names are imported on first use, so that finding commands stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxybyte.training.compressors import CannotEncode, Compressor, load_compressor, load_spelling

__all__ = ["CannotEncode", "Compressor", "load_compressor", "load_spelling"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".compressors", __name__), name)
