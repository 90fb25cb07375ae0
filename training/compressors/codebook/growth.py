"""From M1 to a trie: the strings that are likeliest from a fresh context.

A string is never likelier than its prefix, so the ``n`` likeliest strings are prefix-closed: they are a trie. It is
grown best first in batches: whatever is likelier than the ``n``-th likeliest string known so far may have children
that belong, and is expanded; when no such string is left, the ``n`` likeliest known are the ``n`` likeliest of all.
"""

from dataclasses import dataclass

import numpy as np
import torch

from proxybyte.errors import WrongOption
from proxybyte.progress import Progress

from ..neural.byte_lm import FREQUENCY_BITS, LOGIT_BITS, ByteLM
from .boundaries import Boundary, joins
from .trie import LONGEST, NUM_SINGLES, Trie

EXPANDED_AT_ONCE = 4096
_COST_BITS = 16
"""Fractional bits of a string's cost, -log2 of its probability, which is kept as an integer."""


@dataclass(frozen=True)
class GrowthRule:
    """What the trie may hold.

    Attributes:
        symbols: number of nodes, 256 or more.
        boundary: where a symbol must end.
        threshold: bits of entropy above which a symbol ends, for :attr:`Boundary.ENTROPY`.
        jump: bits by which entropy may rise within a symbol, for :attr:`Boundary.ENTROPY`.
    """

    symbols: int
    boundary: Boundary = Boundary.NONE
    threshold: float = 4.5
    jump: float = 3.0

    def __post_init__(self) -> None:
        """Check the number of symbols.

        Raises:
            ProxyByteError: if it is below 256.
        """
        if self.symbols < NUM_SINGLES:
            told = f"symbols {self.symbols}: give 256 or more: a codebook holds all single bytes"
            raise WrongOption(told, "symbols")


class _Forest:
    """Every string met so far, and M1's state after each that was expanded."""

    def __init__(self, lm: ByteLM, rule: GrowthRule):
        self.lm, self.rule, self.allowed = lm, rule, joins(rule.boundary)
        self.log2 = np.log2(np.arange(1, 2**FREQUENCY_BITS + 1))
        self.prefix = np.arange(NUM_SINGLES)
        self.byte = np.arange(NUM_SINGLES)
        self.length = np.ones(NUM_SINGLES, np.int64)
        self.waiting = np.ones(NUM_SINGLES, bool)
        root = lm.fresh(1)
        self.cost = self._costs(lm.frequencies(root))[0]
        self.entropy = np.full(NUM_SINGLES, int(lm.entropies(root)))
        self.states = root
        self.row_before = np.zeros(NUM_SINGLES, np.int64)

    def limit(self) -> int:
        """Cost of the last string that belongs, as far as is known; single bytes belong at any cost."""
        others, wanted = self.cost[NUM_SINGLES:], self.rule.symbols - NUM_SINGLES
        if wanted == 0:
            return -1
        return int(np.partition(others, wanted - 1)[wanted - 1]) if len(others) >= wanted else np.iinfo(np.int64).max

    def expand(self, nodes: np.ndarray, limit: int) -> None:
        """Meet the strings one byte longer than ``nodes`` that cost at most ``limit``."""
        states = self.lm.step(
            self.states[torch.from_numpy(self.row_before[nodes]).to(self.lm.device)],
            torch.from_numpy(self.byte[nodes]).to(self.lm.device),
        )
        cost = self.cost[nodes][:, None] + self._costs(self.lm.frequencies(states))
        fits = (cost <= limit) & self.allowed[self.byte[nodes]] & (self.length[nodes] < LONGEST)[:, None]
        entropy = self.lm.entropies(states).cpu().numpy()
        if self.rule.boundary is Boundary.ENTROPY:
            unit = 2**LOGIT_BITS
            opens = entropy > self.rule.threshold * unit
            opens |= entropy - self.entropy[nodes] > self.rule.jump * unit
            fits &= ~opens[:, None]
        parent, byte = np.nonzero(fits)
        self.waiting[nodes] = False
        self.prefix = np.append(self.prefix, nodes[parent])
        self.byte = np.append(self.byte, byte)
        self.length = np.append(self.length, self.length[nodes[parent]] + 1)
        self.cost = np.append(self.cost, cost[parent, byte])
        self.entropy = np.append(self.entropy, entropy[parent])
        self.waiting = np.append(self.waiting, np.ones(len(parent), bool))
        self.row_before = np.append(self.row_before, len(self.states) + parent)
        self.states = torch.cat([self.states, states])

    def trie(self) -> Trie:
        """The likeliest strings; nodes after the single bytes in order of probability."""
        others = np.argsort(self.cost[NUM_SINGLES:], kind="stable")[: self.rule.symbols - NUM_SINGLES]
        chosen = np.concatenate([np.arange(NUM_SINGLES), others + NUM_SINGLES])
        number = np.empty(len(self.prefix), np.int64)
        number[chosen] = np.arange(len(chosen))
        return Trie(number[self.prefix[chosen]].astype(np.uint32), self.byte[chosen].astype(np.uint8))

    def _costs(self, frequencies: torch.Tensor) -> np.ndarray:
        log2 = self.log2[frequencies.cpu().numpy() - 1]
        return np.rint((FREQUENCY_BITS - log2) * 2**_COST_BITS).astype(np.int64)


def grow(lm: ByteLM, rule: GrowthRule) -> Trie:
    """The trie of the ``rule.symbols`` likeliest strings under ``lm`` that ``rule`` allows, single bytes included.

    Raises:
        ProxyByteError: if fewer strings than ``rule.symbols`` are allowed.
    """
    forest = _Forest(lm, rule)
    with Progress(total=rule.symbols, desc="growing codebook", unit="string", delay=2) as bar:
        while True:
            limit = forest.limit()
            waiting = np.flatnonzero(forest.waiting & (forest.cost <= limit))
            if not len(waiting):
                break
            cheapest = waiting[np.argsort(forest.cost[waiting], kind="stable")[:EXPANDED_AT_ONCE]]
            forest.expand(cheapest, limit)
            bar.update(min(len(forest.prefix), rule.symbols) - bar.n)
    trie = forest.trie()
    if len(trie) < rule.symbols:
        told = f"only {len(trie)} strings are allowed by boundary {rule.boundary!s}; lower symbols"
        raise WrongOption(told, "symbols")
    return trie
