"""A prefix-closed set of byte strings as two columns, and the strings that its nodes spell.

Node ``i`` is the string of node ``prefixes[i]`` with byte ``last_bytes[i]`` after it. Nodes 0 to 255 are the single
bytes, node ``b`` being byte ``b``, so that any bytes can be spelled. A node comes after its prefix.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from proxybyte.errors import ProxyByteError

from ..symbol_bytes import SymbolBytes

NUM_SINGLES = 256
LONGEST = 255
"""Most bytes that one symbol may stand for; bounds the size of every table that is made of a trie."""


@dataclass(frozen=True, eq=False)
class Trie:
    """A prefix-closed set of byte strings that holds every single byte.

    Attributes:
        prefixes: shape ``(n,)``, uint32; node of the string without its last byte. A single byte, which has none,
            holds its own number.
        last_bytes: shape ``(n,)``, uint8.
    """

    prefixes: np.ndarray
    last_bytes: np.ndarray

    def __post_init__(self) -> None:
        """Check that the columns are a trie.

        Raises:
            ProxyByteError: if they are not; the message names the node.
        """
        count = len(self.prefixes)
        if self.prefixes.shape != (count,) or self.last_bytes.shape != (count,) or count < NUM_SINGLES:
            raise ProxyByteError(f"a codebook needs two columns of at least {NUM_SINGLES} nodes, not {count}")
        if (self.prefixes.dtype, self.last_bytes.dtype) != (np.uint32, np.uint8):
            raise ProxyByteError(
                f"a codebook's columns are uint32 and uint8, not {self.prefixes.dtype} and {self.last_bytes.dtype}"
            )
        singles = np.arange(NUM_SINGLES)
        if (self.prefixes[:NUM_SINGLES] != singles).any() or (self.last_bytes[:NUM_SINGLES] != singles).any():
            raise ProxyByteError("a codebook's first 256 nodes must be the single bytes in order")
        late = np.flatnonzero(self.prefixes[NUM_SINGLES:] >= np.arange(NUM_SINGLES, count))
        if len(late):
            raise ProxyByteError(f"node {late[0] + NUM_SINGLES} of the codebook does not come after its prefix")
        edges = self.prefixes[NUM_SINGLES:].astype(np.int64) * 256 + self.last_bytes[NUM_SINGLES:]
        if len(np.unique(edges)) != len(edges):
            raise ProxyByteError("the codebook holds a string twice")

    def __len__(self) -> int:
        """Number of nodes, which is the number of symbols."""
        return len(self.prefixes)

    @cached_property
    def spellings(self) -> SymbolBytes:
        """The strings of all nodes.

        Raises:
            ProxyByteError: if a string is longer than :data:`LONGEST`.
        """
        lengths = self._lengths()
        offsets = np.cumsum(lengths) - lengths
        flat = np.empty(int(lengths.sum()), np.uint8)
        node, place = np.arange(len(self)), offsets + lengths - 1
        while len(node):
            flat[place] = self.last_bytes[node]
            longer = node >= NUM_SINGLES
            node, place = self.prefixes[node[longer]].astype(np.int64), place[longer] - 1
        return SymbolBytes(lengths, offsets, flat)

    @cached_property
    def is_prefix(self) -> np.ndarray:
        """Shape ``(n,)``, bool: whether some node extends this one."""
        found = np.zeros(len(self), bool)
        found[self.prefixes[NUM_SINGLES:]] = True
        return found

    def _lengths(self) -> np.ndarray:
        lengths = np.ones(len(self), np.int64)
        node = self.prefixes.astype(np.int64)
        climbing = np.arange(NUM_SINGLES, len(self))
        while len(climbing):
            lengths[climbing] += 1
            if lengths[climbing[0]] > LONGEST:
                raise ProxyByteError(f"node {climbing[0]} of the codebook spells more than {LONGEST} bytes")
            above = node[climbing]
            node[climbing] = self.prefixes[above]
            climbing = climbing[above >= NUM_SINGLES]
        return lengths


def extend(trie: Trie, prefixes: np.ndarray, last_bytes: np.ndarray) -> Trie:
    """``trie`` with more nodes after its own.

    Args:
        trie: what to extend; its nodes keep their numbers.
        prefixes: shape ``(k,)``, integers; the node that each new one extends, an old one or an earlier new one.
        last_bytes: shape ``(k,)``, integers in ``0 .. 255``.
    """
    return Trie(
        np.concatenate([trie.prefixes, prefixes.astype(np.uint32)]),
        np.concatenate([trie.last_bytes, last_bytes.astype(np.uint8)]),
    )


def keep(trie: Trie, kept: np.ndarray) -> Trie:
    """``trie`` without the nodes where ``kept`` (shape ``(n,)``, bool) is false; the rest are numbered anew in order.

    The caller keeps the single bytes and every kept node's prefix.
    """
    number = np.cumsum(kept) - 1
    return Trie(number[trie.prefixes[kept]].astype(np.uint32), trie.last_bytes[kept])
