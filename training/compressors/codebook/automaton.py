"""Greedy parsing with a trie as a table walk over many stretches of text at once.

The longest match from each restart is what a finite automaton finds whose states are the trie's nodes: state ``s``
goes on byte ``b`` to the node of ``s`` with ``b`` after it, or, where there is none, to the single byte ``b``. Every
state below 256 is therefore a restart, and the state before a restart is a symbol: one gather a byte, no branches.

Text is cut into blocks that are walked side by side, one vectorised step a byte. A block begins as if a symbol began
there, which may be wrong; but two walks that restart at the same byte agree from there on, and the walk of the block
before, carried on for ``OVERLAP`` bytes, nearly always meets such a byte soon. Where it does not, plain sequential
steps mend the text up to the next such byte, so the result is the greedy parse exactly.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .trie import NUM_SINGLES, Trie

LANES = 8192
OVERLAP = 64
SHORTEST_BLOCK, LONGEST_BLOCK = 256, 1024
SEQUENTIAL_BELOW = 16_384
"""Bytes under which the steps of one plain walk cost less than those of many lanes."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """A trie as a transition table. Making the table takes 512 bytes a node and a few milliseconds."""

    trie: Trie

    @cached_property
    def table(self) -> np.ndarray:
        """Shape ``(256 * n,)``, uint16 or uint32: element ``256 * s + b`` is the state after ``s`` on byte ``b``."""
        dtype = np.uint16 if len(self.trie) <= 1 << 16 else np.uint32
        table = np.tile(np.arange(NUM_SINGLES, dtype=dtype), (len(self.trie), 1))
        longer = np.arange(NUM_SINGLES, len(self.trie))
        table[self.trie.prefixes[longer], self.trie.last_bytes[longer]] = longer
        return table.ravel()

    def parse(self, text: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """Greedy parse of each document.

        Args:
            text: shape ``(n,)``, uint8; the documents one after another.
            starts: shape ``(d,)``, int64, non-decreasing; where each document begins.

        Returns:
            For each document the nodes of its longest matches in order, in the table's type.
        """
        if not len(text):
            return [np.empty(0, self.table.dtype) for _ in starts]
        states = self.states(text, starts)
        restarts = np.flatnonzero(states < NUM_SINGLES)
        symbols = states[np.append(restarts[1:], len(text)) - 1]
        return np.split(symbols, np.searchsorted(restarts, starts[1:]))

    def states(self, text: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """State after each byte of ``text``, shape ``(n,)``; arguments as for :meth:`parse`."""
        if len(text) < SEQUENTIAL_BELOW:
            states = np.full(len(text), NUM_SINGLES, self.table.dtype)
            self._walk_on(text, starts, states, 0)
            return states
        block = int(np.clip(len(text) // LANES, SHORTEST_BLOCK, LONGEST_BLOCK))
        lanes = self._walk_blocks(text, starts, block)
        restarts = lanes < NUM_SINGLES
        meets = restarts[:-1, block:] & restarts[1:, :OVERLAP]
        meeting = np.where(meets.any(axis=1), meets.argmax(axis=1), 0)
        before = np.arange(OVERLAP) < meeting[:, None]
        lanes[1:, :OVERLAP][before] = lanes[:-1, block:][before]
        states = lanes[:, :block].reshape(-1)[: len(text)]
        for lost in np.flatnonzero(~meets.any(axis=1)) + 1:
            self._walk_on(text, starts, states, int(lost) * block)
        return states

    def _walk_blocks(self, text: np.ndarray, starts: np.ndarray, block: int) -> np.ndarray:
        """States of blocks each walked from its own first byte on, shape ``(blocks, block + OVERLAP)``."""
        count = -(-len(text) // block)
        padded = np.zeros(count * block + OVERLAP, np.uint8)
        padded[: len(text)] = text
        blocks = np.lib.stride_tricks.sliding_window_view(padded, block + OVERLAP)[::block]
        lanes = np.empty((count, block + OVERLAP), self.table.dtype)
        for first in range(0, count, LANES):
            some = slice(first, first + LANES)
            lanes[some] = self._walk_columns(np.ascontiguousarray(blocks[some].T), starts - first * block, block).T
        return lanes

    def _walk_columns(self, columns: np.ndarray, starts: np.ndarray, block: int) -> np.ndarray:
        """States of blocks that lie in columns, shape ``(block + OVERLAP, lanes)``, with documents at ``starts``."""
        states = np.empty(columns.shape, self.table.dtype)
        states[0] = columns[0]
        rows, lanes = _places(starts, block, columns.shape[1])
        borders = np.searchsorted(rows, np.arange(len(columns) + 1))
        index = np.empty(columns.shape[1], np.int64)
        for row in range(1, len(columns)):
            np.multiply(states[row - 1], NUM_SINGLES, out=index, dtype=np.int64)
            index += columns[row]
            self.table.take(index, out=states[row], mode="clip")
            if borders[row] < borders[row + 1]:
                opened = lanes[borders[row] : borders[row + 1]]
                states[row, opened] = columns[row, opened]
        return states

    def _walk_on(self, text: np.ndarray, starts: np.ndarray, states: np.ndarray, place: int) -> None:
        """Correct ``states`` from ``place`` on, up to the first byte where both the old and the new walk restart."""
        table, old, data = self.table.data, states.data, text.data
        document = int(np.searchsorted(starts, place))
        opening = int(starts[document]) if document < len(starts) else len(text)
        state = old[place - 1] if place else 0
        for here in range(place, len(text)):
            if here < opening:
                state = table[NUM_SINGLES * state + data[here]]
            else:
                state = data[here]
                document = int(np.searchsorted(starts, here, side="right"))
                opening = int(starts[document]) if document < len(starts) else len(text)
            if state < NUM_SINGLES and old[here] < NUM_SINGLES:
                return
            old[here] = state


def _places(starts: np.ndarray, block: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and lane of every document's start, sorted by row; one that lies in an overlap is there twice."""
    lane, row = np.divmod(starts, block)
    again = row < OVERLAP
    rows, lanes = np.concatenate([row, row[again] + block]), np.concatenate([lane, lane[again] - 1])
    inside = (lanes >= 0) & (lanes < count)
    order = np.argsort(rows[inside], kind="stable")
    return rows[inside][order], lanes[inside][order]
