"""From text to a trained model: compressors, the prepared dataset, the stream plan, the training loop, experiments.

The public names are imported on first use, so that finding commands stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxybyte.training.compressors import (
        CannotEncode,
        Compressor,
        load_compressor,
        load_spelling,
        short_names,
        spelling_of,
    )
    from proxybyte.training.compressors.cross_view import CrossViewDrafter
    from proxybyte.training.drawn_text import TEXT_STYLE, bordered, coloured, distinct_colours, plain, scale
    from proxybyte.training.stream.prepared import PreparedSplit
    from proxybyte.training.texts import TEXT_HELP, TextSource, add_text_options, numbered_lines, source_of

__all__ = [
    "TEXT_HELP",
    "TEXT_STYLE",
    "CannotEncode",
    "Compressor",
    "CrossViewDrafter",
    "PreparedSplit",
    "TextSource",
    "add_text_options",
    "bordered",
    "coloured",
    "distinct_colours",
    "load_compressor",
    "load_spelling",
    "numbered_lines",
    "plain",
    "scale",
    "short_names",
    "source_of",
    "spelling_of",
]
_OF_COMPRESSORS = ("CannotEncode", "Compressor", "load_compressor", "load_spelling", "short_names", "spelling_of")
_HOMES = dict.fromkeys(_OF_COMPRESSORS, "compressors")
_HOMES |= dict.fromkeys(("TEXT_STYLE", "bordered", "coloured", "distinct_colours", "plain", "scale"), "drawn_text")
_HOMES["PreparedSplit"] = "stream.prepared"
_HOMES["CrossViewDrafter"] = "compressors.cross_view"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'texts')}", __name__), name)
