"""Who owns which id: the only place that knows the layout of the one id space.

====================  =========================================================
ids                   owner
====================  =========================================================
0 .. 63               specials (:class:`Special`, the rest ``<extra_id_N>``)
64 .. 319             the bytes: byte ``b`` is symbol ``64 + b``
320 and up            the compressed symbols: code ``c`` is symbol ``320 + c``
====================  =========================================================

This is the layout of published EvaByte checkpoints and of the proxy compression paper's runs (arXiv 2602.04289),
so their weights fit. A byte never shares an id with a special.
"""

from enum import IntEnum, StrEnum
from typing import Any

NUM_SPECIALS = 64
NUM_BYTES = 256
BYTE_OFFSET = NUM_SPECIALS
NUM_RAW_SYMBOLS = NUM_SPECIALS + NUM_BYTES
"""Rows of a model that knows bytes alone; also the first compressed symbol."""
COMPRESSED_OFFSET = NUM_RAW_SYMBOLS
IGNORE_INDEX = -100
"""Label of a position that is not a target (PyTorch's own default)."""


class Special(IntEnum):
    """The named specials. Ids below 64 that are not listed are spelled ``<extra_id_N>``."""

    PAD = 0
    BOS = 1
    EOS = 2
    UNK = 3
    SEP = 4
    REPO_NAME = 5
    FILE_SEP = 6
    HEADER_START = 9
    HEADER_END = 10
    END_OF_TURN = 11
    RAW_OPEN = 12
    RAW_CLOSE = 13
    COMPRESSED_OPEN = 14
    COMPRESSED_CLOSE = 15
    FIM_PREFIX = 16
    FIM_MIDDLE = 17
    FIM_SUFFIX = 18


_SPELLING = {
    Special.PAD: "<pad>",
    Special.BOS: "<bos>",
    Special.EOS: "<eos>",
    Special.UNK: "<unk>",
    Special.SEP: "<sep>",
    Special.REPO_NAME: "<repo_name>",
    Special.FILE_SEP: "<file_sep>",
    Special.HEADER_START: "<|start_header_id|>",
    Special.HEADER_END: "<|end_header_id|>",
    Special.END_OF_TURN: "<|eot_id|>",
    Special.RAW_OPEN: "<raw>",
    Special.RAW_CLOSE: "</raw>",
    Special.COMPRESSED_OPEN: "<comp>",
    Special.COMPRESSED_CLOSE: "</comp>",
    Special.FIM_PREFIX: "<|fim_prefix|>",
    Special.FIM_MIDDLE: "<|fim_middle|>",
    Special.FIM_SUFFIX: "<|fim_suffix|>",
}


def special_spelling(symbol: int) -> str:
    """Spelling of special ``symbol`` in a tokenizer, for example ``"<raw>"`` for 12.

    Raises:
        ValueError: if ``symbol`` is not in ``0 .. 63``.
    """
    if not 0 <= symbol < NUM_SPECIALS:
        raise ValueError(f"symbol {symbol} is no special: specials are 0 to {NUM_SPECIALS - 1}")
    return _SPELLING.get(symbol, f"<extra_id_{symbol}>")  # type: ignore[call-overload]


class View(StrEnum):
    """How a span of text is written in the stream."""

    RAW = "raw"
    COMPRESSED = "compressed"

    @property
    def open(self) -> Special:
        """The sentinel before a span in this view."""
        return Special.RAW_OPEN if self is View.RAW else Special.COMPRESSED_OPEN

    @property
    def close(self) -> Special:
        """The sentinel after a span in this view."""
        return Special.RAW_CLOSE if self is View.RAW else Special.COMPRESSED_CLOSE


class DocumentOpening(StrEnum):
    """How a document opens: what stands before its first byte or compressed symbol."""

    RAW = "<raw>"
    """The view's own sentinel alone: ``<raw>`` or ``<comp>``."""
    BOS_RAW = "<bos><raw>"
    """``<bos>``, then the view's own sentinel."""
    BOS = "<bos>"
    """``<bos>`` in the place of ``<raw>``, as in published EvaByte checkpoints; a compressed view keeps ``<comp>``."""

    @classmethod
    def of(cls, config: Any) -> "DocumentOpening":
        """That of the model of ``config``; ``<raw>`` where it says nothing (a plain native export)."""
        return cls(getattr(config, "document_opening", None) or cls.RAW)

    def symbols(self, view: View = View.RAW) -> tuple[int, ...]:
        """Ids that open a document of ``view``."""
        if self is DocumentOpening.BOS and view is View.RAW:
            return (int(Special.BOS),)
        sentinel = (int(view.open),)
        return (int(Special.BOS), *sentinel) if self is DocumentOpening.BOS_RAW else sentinel


def document_opening(config: Any, view: View = View.RAW) -> tuple[int, ...]:
    """Ids that open a document of ``view`` for the model of ``config``: as ``config.document_opening`` says.

    Args:
        config: of any model that reads our symbols.
        view: the view that the document begins in.
    """
    return DocumentOpening.of(config).symbols(view)
