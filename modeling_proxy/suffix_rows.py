r"""Suffix rows: a raw byte is read as its own row mixed with the row of the longest token whose bytes end there.

With :math:`e` the embedding and :math:`s(t)` the longest symbol of the compressor that spells the last bytes of the
text up to byte :math:`t`,

.. math:: x_t = (1 - m)\, e(b_t) + m\, e(s(t)) ,

so that both views read the same rows. The look-up is causal and needs no segmentation: a trie over the *reversed*
tokens is walked from the byte backwards, all positions at once, and no further than the bytes of the document go,
because whatever is no byte (a sentinel, padding) ends it, and so does a position at which a document begins.

The table is part of the weights (``suffix_rows.edges``, ``suffix_rows.symbols``), so it is saved and travels with them.

*Hashed* rows need no table: :math:`s(t)` is a row of the compressed symbols that the last ``longest`` bytes (fewer near
the document's beginning) are hashed to, as BLT's n-grams are (arXiv 2412.09871), whatever that symbol spells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig

from .errors import ProxyByteError
from .symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_BYTES

NO_SYMBOL = -1
_FNV, _SPREAD = 0x100000001B3, 0x2545F4914F6CDD1D
"""Of the hash of some bytes (FNV's prime), and of the mixing of its bits at the end (xorshift*'s factor)."""


class SuffixRowsConfig(PreTrainedConfig):
    """The section ``suffix_rows`` of a model's configuration.

    Attributes:
        nodes: of the trie, its root included.
        longest: bytes of the longest token in it.
        hashed: rows that the last ``longest`` bytes are hashed to; 0 where tokens are looked up in the trie.
        mix: share of the token's row in what is read, 0 to 1; 0 where they have been faded out.

    Raises:
        ProxyByteError: if one of them is out of its range.
    """

    model_type = "proxybyte_suffix_rows"

    nodes: int = 1
    longest: int = 0
    hashed: int = 0
    mix: float = 0.5

    def __post_init__(self, **kwargs: Any) -> None:
        for name, least in (("nodes", 1), ("longest", 0), ("hashed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ProxyByteError(f"suffix_rows.{name} is {value!r}: give a whole number of at least {least}")
        if isinstance(self.mix, bool) or not isinstance(self.mix, int | float) or not 0 <= self.mix <= 1:
            raise ProxyByteError(f"suffix_rows.mix is {self.mix!r}: give a number from 0 to 1")
        super().__post_init__(**kwargs)

    @classmethod
    def of(cls, given: Any) -> "SuffixRowsConfig | None":
        """The section from what a configuration was given or read from a file.

        Raises:
            ProxyByteError: if it is no such section.
        """
        if given is None or isinstance(given, cls):
            return given
        if not isinstance(given, dict):
            raise ProxyByteError(f"suffix_rows is a {type(given).__name__}: give a dictionary or leave it out")
        if unknown := sorted(given.keys() - {*_SETTINGS, "model_type"} - _OF_EVERY_CONFIG):
            raise ProxyByteError(f"suffix_rows has no setting {unknown[0]!r}: it has {', '.join(_SETTINGS)}")
        return cls(**{name: given[name] for name in _SETTINGS if name in given})


_SETTINGS = ("nodes", "longest", "hashed", "mix")
_OF_EVERY_CONFIG = frozenset(PreTrainedConfig().to_dict())


@dataclass(frozen=True)
class SuffixTable:
    """The trie over reversed tokens.

    Nodes are numbered from 1 in the order of ``edges``; node 0 is the root.

    Attributes:
        edges: ``256 * parent + byte`` of nodes 1 and up, ascending, int64, shape ``(nodes - 1,)``.
        symbols: of each node, the longest symbol whose reversed bytes lead to it or to a node above it, int64,
            :data:`NO_SYMBOL` where there is none, shape ``(nodes,)``.
        longest: bytes of the longest token.
    """

    edges: np.ndarray
    symbols: np.ndarray
    longest: int

    @classmethod
    def build(cls, spellings: Sequence[bytes | None]) -> "SuffixTable":
        """The table of a compressor.

        Args:
            spellings: bytes of each code, ``None`` or empty where it spells nothing. Of two codes that spell the same
                the later one is taken: a SentencePiece vocabulary has its bytes before its pieces.
        """
        texts: dict[bytes, int] = {}
        for code, spelled in enumerate(spellings):
            if spelled:
                texts[spelled[::-1]] = COMPRESSED_OFFSET + code
        words = sorted(texts, key=len)
        length = np.array([len(word) for word in words], dtype=np.int64)
        symbol = np.array([texts[word] for word in words], dtype=np.int64)
        text = np.frombuffer(b"".join(words), dtype=np.uint8).astype(np.int64)
        start = np.cumsum(length) - length
        edges: list[np.ndarray] = []
        symbols = [np.full(1, NO_SYMBOL)]
        node = np.zeros(len(words), dtype=np.int64)
        made, longest = 1, int(length.max(initial=0))
        for depth in range(longest):
            # Words are sorted by length, so those that go on are the last ones.
            first = int(np.searchsorted(length, depth, side="right"))
            keys, place = np.unique(node[first:] * NUM_BYTES + text[start[first:] + depth], return_inverse=True)
            inherited = np.concatenate(symbols)[keys // NUM_BYTES]
            ends = length[first:] == depth + 1
            inherited[place[ends]] = symbol[first:][ends]
            edges.append(keys)
            symbols.append(inherited)
            node[first:] = made + place
            made += len(keys)
        return cls(np.concatenate([np.zeros(0, np.int64), *edges]), np.concatenate(symbols), longest)


class SuffixRows(nn.Module):
    """The look-up, and the mixture of rows.

    Args:
        config: the section of the model's configuration; its ``mix`` is read anew at every pass.
    """

    edges: torch.Tensor
    symbols: torch.Tensor

    def __init__(self, config: SuffixRowsConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("edges", torch.zeros(config.nodes - 1, dtype=torch.int64))
        self.register_buffer("symbols", torch.full((config.nodes,), NO_SYMBOL, dtype=torch.int64))

    def fill(self, table: SuffixTable) -> None:
        """Take over a table of the size that the configuration says."""
        self.edges.copy_(torch.from_numpy(table.edges))
        self.symbols.copy_(torch.from_numpy(table.symbols))

    @property
    def reach(self) -> int:
        """How many symbols before a byte can matter to it."""
        return max(self.config.longest - 1, 0)

    @torch.no_grad()
    def look_up(
        self,
        input_ids: torch.Tensor,
        before: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The longest symbol whose bytes end at each position, :data:`NO_SYMBOL` where there is none.

        Args:
            input_ids: symbols, shape ``(B, T)``.
            before: the symbols before them, shape ``(B, H)``; nothing if absent.
            position_ids: of ``input_ids``; a document begins where they do not go on by one.

        Returns:
            Shape ``(B, T)``.
        """
        rows, length = input_ids.shape
        skipped = 0 if before is None else before.shape[1]
        symbols = input_ids if before is None else torch.cat([before.to(input_ids), input_ids], dim=1)
        is_byte = (symbols >= BYTE_OFFSET) & (symbols < COMPRESSED_OFFSET)
        place = torch.arange(symbols.shape[1], device=symbols.device).expand_as(symbols)
        # The first position that a walk from here may read.
        opening = torch.where(is_byte, 0, place + 1)
        if position_ids is not None and length > 1:
            jumps = (position_ids.diff(dim=1) != 1).expand(rows, -1)
            inner = opening[:, skipped + 1 :]
            opening[:, skipped + 1 :] = torch.where(jumps, torch.maximum(inner, place[:, skipped + 1 :]), inner)
        room = (place - opening.cummax(dim=1).values + 1)[:, skipped:].flatten()
        nodes = torch.zeros_like(room)
        bytes_ = (symbols - BYTE_OFFSET).flatten()
        at = (torch.arange(rows, device=symbols.device)[:, None] * symbols.shape[1] + place[:, skipped:]).flatten()
        if self.config.hashed:
            return self._hashed(room, bytes_, at).view(rows, length)
        going = (room > 0).nonzero().squeeze(1)
        for step in range(self.config.longest):
            if not len(going):
                break
            keys = nodes[going] * NUM_BYTES + bytes_[at[going] - step]
            edge = torch.searchsorted(self.edges, keys).clamp(max=len(self.edges) - 1)
            found = self.edges[edge] == keys
            going = going[found]
            nodes[going] = edge[found] + 1
            going = going[room[going] > step + 1]
        return self.symbols[nodes].view(rows, length)

    def _hashed(self, room: torch.Tensor, bytes_: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """The row of the last ``longest`` bytes at each position, or of the ``room`` there are; 64-bit arithmetic."""
        found = torch.zeros_like(room)
        for step in range(self.config.longest):
            read = bytes_[(at - step).clamp(min=0)]
            found = torch.where(room > step, found * _FNV + read + 1, found)
        found = (found ^ (found >> 29)) * _SPREAD
        symbols = COMPRESSED_OFFSET + (found ^ (found >> 32)) % self.config.hashed
        return torch.where(room > 0, symbols, NO_SYMBOL)

    def read(
        self,
        embedding: nn.Module,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None,
        cache: Any,
        suffixes: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the decoder reads, shape ``(B, T, D)``, and the symbols so far as :func:`note_symbols` wants them.

        Args:
            embedding: of all symbols.
            input_ids: shape ``(B, T)``.
            position_ids: of ``input_ids``; those of a packed row restart.
            cache: what was read before, if anything.
            suffixes: what :meth:`look_up` gives, where the caller knows it, shape ``(B, T)``.

        Raises:
            ProxyByteError: if the cache holds a text whose symbols are unknown.
        """
        seen = None
        if suffixes is None:
            before = symbols_before(cache, input_ids, self.reach)
            suffixes = self.look_up(input_ids, before, position_ids)
            seen = input_ids if before is None else torch.cat([before.to(input_ids), input_ids], dim=1)
        found = suffixes != NO_SYMBOL
        own = embedding(input_ids)
        other = embedding(torch.where(found, suffixes, input_ids))
        return torch.lerp(own, other, found[..., None].to(own.dtype) * self.config.mix), seen

    def following(self, text: torch.Tensor, length: int) -> torch.Tensor:
        """:meth:`look_up` of the last ``length`` columns of ``text`` ``(B, C)``, shape ``(B, length)``."""
        first = text.shape[1] - length
        return self.look_up(text[:, first:], text[:, max(0, first - self.reach) : first])


_SEEN = "_proxybyte_symbols_seen"
"""Under which name a cache carries ``(symbols (B, H), columns it held after them)``."""


def symbols_before(cache: Any, input_ids: torch.Tensor, reach: int) -> torch.Tensor | None:
    """The symbols that ``cache`` holds, as far as a look-up reaches; ``None`` at the start of a text.

    Raises:
        ProxyByteError: if they are unknown.
    """
    held = 0 if cache is None else int(cache.get_seq_length())
    if not held:
        return None
    symbols, end = getattr(cache, _SEEN, (None, 0))
    if symbols is not None and held <= end and len(symbols) == len(input_ids):
        kept = symbols.shape[1] - (end - held)
        if kept >= min(held, reach):
            return symbols[:, :kept]
    raise ProxyByteError(
        "past_key_values hold a text whose bytes are unknown here, and suffix rows depend on them: pass "
        "suffix_symbols=model.suffix_rows.following(text, length)"
    )


def note_symbols(cache: Any, seen: torch.Tensor | None) -> None:
    """Let ``cache`` carry the symbols ``seen`` ``(B, H)`` that it holds, or none where they are not known."""
    if cache is None or torch.compiler.is_compiling():
        return
    if seen is not None:
        setattr(cache, _SEEN, (seen, int(cache.get_seq_length())))
    elif hasattr(cache, _SEEN):
        delattr(cache, _SEEN)
