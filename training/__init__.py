"""From text to a trained model: compressors, the prepared dataset, the stream plan, the training loop.

The public names are imported on first use, as those of the other rooms are.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxybyte.training.compressors import load_spelling

__all__ = ["load_spelling"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from proxybyte.training import compressors

    return getattr(compressors, name)
