r"""The next byte from a distribution over tokens: prefix ranges of the sorted vocabulary.

Tokens that begin with given bytes are neighbours in the sorted vocabulary, so the chance of all of them is a
difference of two cumulative sums. With :math:`s` the bytes of a token seen so far,

.. math:: p(b \mid s) = \sum_{v \text{ begins with } s b} p(v) \Big/ \sum_{v \text{ begins with } s,\, v \ne s} p(v) .
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from proxybyte.symbols import NUM_BYTES

ROOT = 0


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The trie over a vocabulary; each node is a prefix of some token and knows its tokens' range.

    Attributes:
        order: codes that spell something in the order of their bytes, int64, shape ``(V,)``.
        edges: ``256 * parent + byte`` of nodes 1 and up, ascending, int64, shape ``(nodes - 1,)``.
        low: first place in ``order`` of the tokens below each node, int64, shape ``(nodes,)``.
        high: the place behind the last one, of the same shape.
    """

    order: torch.Tensor
    edges: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def build(cls, spellings: Sequence[bytes | None], device: torch.device | str = "cpu") -> "Prefixes":
        """Of a vocabulary given by the bytes of each code, ``None`` or empty where it spells nothing."""
        codes = sorted((code for code, spelled in enumerate(spellings) if spelled), key=lambda code: spellings[code])  # type: ignore[arg-type, return-value]
        words = [spellings[code] or b"" for code in codes]
        length = np.array([len(word) for word in words], dtype=np.int64)
        text = np.frombuffer(b"".join(words), dtype=np.uint8).astype(np.int64)
        start = np.cumsum(length) - length
        node = np.zeros(len(words), dtype=np.int64)
        edges, low, high, made = [], [np.zeros(1, np.int64)], [np.full(1, len(words))], 1
        for depth in range(int(length.max(initial=0))):
            (going,) = np.nonzero(length > depth)
            keys, place, count = np.unique(
                node[going] * NUM_BYTES + text[start[going] + depth], return_inverse=True, return_counts=True
            )
            first = np.full(len(keys), len(words))
            np.minimum.at(first, place, going)
            edges.append(keys)
            low.append(first)
            high.append(first + count)
            node[going] = made + place
            made += len(keys)
        columns = (
            np.array(codes, np.int64),
            *(np.concatenate(part or [np.zeros(0, np.int64)]) for part in (edges, low, high)),
        )
        return cls(*(torch.from_numpy(column).to(device) for column in columns))

    def children(self, nodes: torch.Tensor, bytes_: torch.Tensor) -> torch.Tensor:
        """The node of each prefix with a byte after it, -1 where no token begins so; -1 stays -1.

        Args:
            nodes: any shape.
            bytes_: of a shape that goes with it.
        """
        keys = nodes * NUM_BYTES + bytes_
        if not len(self.edges):
            return torch.full_like(keys, -1)
        edge = torch.searchsorted(self.edges, keys).clamp(max=len(self.edges) - 1)
        return torch.where((self.edges[edge] == keys) & (nodes >= 0), edge + 1, -1)

    def cumulated(self, chances: torch.Tensor) -> torch.Tensor:
        """Cumulative sums in the order of the vocabulary.

        Args:
            chances: of every code, shape ``(K, codes)``.

        Returns:
            Float64, shape ``(K, V + 1)``, from 0 on.
        """
        sums = chances.new_zeros(len(chances), len(self.order) + 1, dtype=torch.float64)
        torch.cumsum(chances[:, self.order].double(), dim=1, out=sums[:, 1:])
        return sums

    def next_bytes(self, sums: torch.Tensor, rows: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
        """Chance of each byte together with the prefix before it; not renormalised.

        Args:
            sums: as :meth:`cumulated` gives them, shape ``(K, V + 1)``.
            rows: which of them holds at each place, shape ``(N,)``.
            nodes: bytes of the token seen before each place, shape ``(N,)``.

        Returns:
            Float64, shape ``(N, 256)``.
        """
        below = self.children(nodes[:, None], torch.arange(NUM_BYTES, device=nodes.device))
        there = below >= 0
        at = below.clamp(min=0)
        chances = sums[rows[:, None], self.high[at]] - sums[rows[:, None], self.low[at]]
        return chances.where(there, 0.0)

    def walk(self, text: torch.Tensor, starts: torch.Tensor, length: int) -> torch.Tensor:
        """The node before each byte of stretches of a text.

        Args:
            text: bytes, int64, shape ``(n,)``.
            starts: where each stretch begins, shape ``(K,)``.
            length: how many bytes of each to take.

        Returns:
            Shape ``(K, length)``: column ``j`` is the node after ``j`` bytes, -1 where no token begins with them.
        """
        nodes = [torch.full_like(starts, ROOT)]
        for depth in range(length - 1):
            nodes.append(self.children(nodes[-1], text[(starts + depth).clamp(max=len(text) - 1)]))
        return torch.stack(nodes, dim=1)
