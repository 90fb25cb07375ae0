"""Documents out of files: the one reader of every command that takes text.

The names are imported on first use, because options are declared where commands are found.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .options import TEXT_HELP, add_text_options, source_of, text_rules_of
from .records import MEGABYTE, LeftOut, TextRules

if TYPE_CHECKING:
    from .jsonl import numbered_lines
    from .sources import TextSource, batches

__all__ = [
    "MEGABYTE",
    "TEXT_HELP",
    "LeftOut",
    "TextRules",
    "TextSource",
    "add_text_options",
    "batches",
    "numbered_lines",
    "source_of",
    "text_rules_of",
]
_HOMES = {"numbered_lines": ".jsonl", "TextSource": ".sources", "batches": ".sources"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
