"""Running M1 over many strings at once, and over what they share only once.

Sorted strings are the leaves of a trie, and a level of that trie is a batch: every node is one row of states, shared by
all strings that begin with it. Real lines and segments share so much that this halves the work at least.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .byte_lm import ByteLM


class PrefixWalk:
    """A walk down the trie of some strings, one level a step.

    ``A`` strings are still walked, under ``G`` distinct prefixes of ``depth`` bytes.

    Attributes:
        text: ``(S, D)`` uint8; the strings, padded.
        lengths: ``(S,)`` int64.
        depth: bytes read so far.
        lanes: ``(A,)`` int64, ascending; which strings are still walked.
        node: ``(A,)`` int64, non-decreasing; the prefix of each.
        states: ``(G, H)``; M1's state after each prefix.
    """

    def __init__(self, lm: ByteLM, strings: Sequence[bytes]):
        """Begin at the empty prefix.

        Args:
            lm: the model.
            strings: distinct and sorted.
        """
        self.lm = lm
        self.text, self.lengths = _padded(strings, lm.device)
        self.depth = 0
        self.lanes = torch.arange(len(strings), device=lm.device)
        self.node = torch.zeros_like(self.lanes)
        self.states = lm.fresh(1)

    def next_bytes(self) -> Tensor:
        """Next byte of each walked string, ``(A,)`` int64; all must have one."""
        return self.text[self.lanes, self.depth].long()

    def remaining(self) -> Tensor:
        """Bytes that each walked string has left, ``(A,)`` int64."""
        return self.lengths[self.lanes] - self.depth

    def keep(self, stays: Tensor) -> None:
        """Walk on only with the strings where ``stays`` (``(A,)`` bool) is true."""
        self.lanes, self.node = self.lanes[stays], self.node[stays]

    def advance(self) -> tuple[Tensor, Tensor]:
        """Read the next byte of every walked string.

        Returns:
            For each new prefix, the old prefix that it extends and the byte, each ``(G',)`` int64.
        """
        edges = self.node * 256 + self.next_bytes()
        opens = torch.ones_like(edges, dtype=torch.bool)
        opens[1:] = edges[1:] != edges[:-1]
        edges = edges[opens]
        parent, byte = edges >> 8, edges & 255
        self.states = self.lm.step(self.states[parent], byte)
        self.node = opens.cumsum(0) - 1
        self.depth += 1
        return parent, byte


def _padded(strings: Sequence[bytes], device: torch.device) -> tuple[Tensor, Tensor]:
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    text = np.zeros((len(strings), int(lengths.max(initial=0))), np.uint8)
    text[np.arange(text.shape[1]) < lengths[:, None]] = np.frombuffer(b"".join(strings), np.uint8)
    return torch.from_numpy(text).to(device), torch.from_numpy(lengths).to(device)
