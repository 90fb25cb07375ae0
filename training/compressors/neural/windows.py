"""Arithmetic coding in windows of equal information (Lester et al. 2024, arXiv 2404.03626, section 3).

A window codes bytes by narrowing an interval of ``2^(bits + 16)`` points, M1's frequencies dividing it, until its
``bits`` are full; then coder and context start afresh. Its code is one of the ``2^bits`` *cells* of ``2^16`` points.
All numbers are exact integers below 2^57.

What a code means is fixed by decoding: the longest string whose interval holds the whole cell (greedy-maximal
look-ahead: follow the byte whose interval holds the cell while there is one). So a string can be named only by a cell
that no longer string's interval holds, one that a border between its bytes runs through. :attr:`Ending.STOP` ends a
window before the byte that would overflow, at the longest string that can be named, and so always decodes.
:attr:`Ending.CUT` takes that byte in as well and keeps the first ``bits`` of the code, as the proxy compression paper
does (arXiv 2602.04289); the last byte is then not determined by the code.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from proxybyte.errors import ProxyByteError

from .byte_lm import FREQUENCY_BITS, LOGIT_BITS, ByteLM


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


LONGEST_STRETCH = 256
MOST_ENTROPY = 8.0
"""Bits of entropy that no byte can exceed: as a threshold or jump, never."""
_STRETCH = re.compile(rb"\n{1,128}[^\n]{0,128}|[^\n]{1,256}")


@dataclass(frozen=True)
class SegmentRule:
    """When a byte opens a segment.

    Attributes:
        threshold: bits of entropy over the byte.
        jump: bits of entropy over the byte more than over the byte before.
    """

    threshold: float
    jump: float


def stretches(document: bytes) -> list[bytes]:
    """``document`` cut into stretches of 1 to 256 bytes; joined they are the document."""
    return _STRETCH.findall(document)


def segments(lm: ByteLM, rule: SegmentRule, strings: Sequence[bytes]) -> list[list[bytes]]:
    """Segments of each of some stretches.

    Args:
        lm: the model.
        rule: when a byte opens a segment.
        strings: distinct and sorted stretches.
    """
    walk = PrefixWalk(lm, strings)
    opens = torch.zeros(walk.text.shape, dtype=torch.bool, device=lm.device)
    opens[:, 0] = True
    threshold, jump = (int(bits * 2**LOGIT_BITS) for bits in (rule.threshold, rule.jump))
    before = lm.entropies(walk.states)
    while True:
        walk.keep(walk.remaining() > 1)
        if not len(walk.lanes):
            break
        parent, _ = walk.advance()
        entropy = lm.entropies(walk.states)
        uncertain = (entropy > threshold) | (entropy - before[parent] > jump)
        opens[walk.lanes, walk.depth] = uncertain[walk.node]
        before = entropy
    return _cut(strings, opens.cpu().numpy())


def _cut(strings: Sequence[bytes], opens: np.ndarray) -> list[list[bytes]]:
    lane, place = np.nonzero(opens)
    ends = np.append(place[1:], 0)
    ends[np.append(lane[1:] != lane[:-1], True)] = LONGEST_STRETCH
    cut: list[list[bytes]] = [[] for _ in strings]
    for i, start, end in zip(lane.tolist(), place.tolist(), ends.tolist(), strict=True):
        cut[i].append(strings[i][start:end])
    return cut


WINDOW_BITS = (8, 12, 16, 24)
LITERALS_BELOW = 16
"""Smaller windows have too few cells to name every byte alone; 256 more codes then stand for the bytes themselves."""
CELL_BITS = 16
_CELL = 1 << CELL_BITS


class Ending(StrEnum):
    """How a window ends."""

    STOP = "stop"
    CUT = "cut"


@dataclass(frozen=True)
class Window:
    """The first window of a string.

    Attributes:
        code: in ``0 .. num_codes - 1``.
        length: bytes that it takes; 0 where no code names any beginning of the string.
        cut: whether its last byte overflowed and is not determined by the code.
    """

    code: int
    length: int
    cut: bool


@dataclass(frozen=True)
class _Nodes:
    """Prefixes of one level: borders of their bytes' intervals, and the longest name so far.

    Attributes:
        borders: ``(G, 257)`` int64; byte ``b`` has the interval ``[borders[b], borders[b + 1])``.
        code: ``(G,)`` int64; the longest nameable prefix's code.
        length: ``(G,)`` int64; its bytes, 0 where there is none.
    """

    borders: Tensor
    code: Tensor
    length: Tensor


@dataclass(frozen=True)
class WindowCoder:
    """Windows of ``bits`` bits under ``lm``.

    Attributes:
        lm: the model.
        bits: one of :data:`WINDOW_BITS`.
        ending: how a window ends.
    """

    lm: ByteLM
    bits: int
    ending: Ending

    @property
    def num_codes(self) -> int:
        """``2^bits``, and 256 more where code ``2^bits + b`` is byte ``b`` alone."""
        return (1 << self.bits) + (256 if self.bits < LITERALS_BELOW else 0)

    def first_windows(self, strings: Sequence[bytes]) -> list[Window]:
        """The first window of each string.

        Args:
            strings: distinct, sorted, none empty.
        """
        walk = PrefixWalk(self.lm, strings)
        found = torch.zeros(len(strings), 3, dtype=torch.int64, device=self.lm.device)
        nodes = self._root()
        while True:
            ended = walk.remaining() == 0
            self._record(found, walk.lanes[ended], nodes, walk.node[ended])
            walk.keep(~ended)
            if not len(walk.lanes):
                break
            byte = walk.next_bytes()
            low, high = nodes.borders[walk.node, byte], nodes.borders[walk.node, byte + 1]
            fits = _first_cell(low) + _CELL <= high
            if self.ending is Ending.STOP:
                self._record(found, walk.lanes[~fits], nodes, walk.node[~fits])
            else:
                length = torch.full_like(low, walk.depth + 1)
                overflow = torch.stack([low >> CELL_BITS, length, torch.ones_like(low)], dim=1)
                found[walk.lanes[~fits]] = overflow[~fits]
            walk.keep(fits)
            if not len(walk.lanes):
                break
            parent, byte = walk.advance()
            nodes = self._children(walk, nodes, parent, byte)
        if self.bits < LITERALS_BELOW:
            unnamed = found[:, 1] == 0
            found[unnamed, 0] = walk.text[unnamed, 0].long() + (1 << self.bits)
            found[unnamed, 1] = 1
        return [Window(code, length, bool(cut)) for code, length, cut in found.tolist()]

    def spell(self, codes: Sequence[int]) -> list[bytes]:
        """The string that each code means.

        Args:
            codes: distinct and ascending.

        Raises:
            ProxyByteError: if a code means a string longer than any that is coded.
        """
        cells = [code for code in codes if code < 1 << self.bits]
        return self._spell_cells(cells) + [bytes([code - (1 << self.bits)]) for code in codes[len(cells) :]]

    def _spell_cells(self, cells: Sequence[int]) -> list[bytes]:
        low = torch.tensor(cells, dtype=torch.int64, device=self.lm.device) << CELL_BITS
        lanes = torch.arange(len(cells), device=low.device)
        node = torch.zeros_like(lanes)
        text = torch.zeros(len(cells), LONGEST_STRETCH, dtype=torch.uint8, device=low.device)
        lengths = torch.zeros_like(lanes)
        states, borders = self.lm.fresh(1), self._root().borders
        for depth in range(LONGEST_STRETCH + 1):
            byte = torch.searchsorted(borders[node], low[lanes, None], right=True)[:, 0] - 1
            inside = borders[node, byte + 1] >= low[lanes] + _CELL
            lengths[lanes[~inside]] = depth
            lanes, node, byte = lanes[inside], node[inside], byte[inside]
            if not len(lanes):
                break
            if depth == LONGEST_STRETCH:
                raise ProxyByteError(f"code {cells[int(lanes[0])]} was not written with this M1 and these settings")
            text[lanes, depth] = byte.to(torch.uint8)
            edges, node = torch.unique_consecutive(node * 256 + byte, return_inverse=True)
            parent, byte = edges >> 8, edges & 255
            states = self.lm.step(states[parent], byte)
            borders = self._borders(borders[parent, byte], borders[parent, byte + 1], self.lm.frequencies(states))
        rows = text.cpu().numpy()
        return [rows[i, :length].tobytes() for i, length in enumerate(lengths.tolist())]

    def _root(self) -> _Nodes:
        zero = torch.zeros(1, dtype=torch.int64, device=self.lm.device)
        frequencies = self.lm.frequencies(self.lm.fresh(1))
        return _Nodes(self._borders(zero, zero + (1 << self.bits + CELL_BITS), frequencies), zero, zero)

    def _children(self, walk: PrefixWalk, nodes: _Nodes, parent: Tensor, byte: Tensor) -> _Nodes:
        low, high = nodes.borders[parent, byte], nodes.borders[parent, byte + 1]
        borders = self._borders(low, high, self.lm.frequencies(walk.states))
        if self.ending is Ending.CUT:
            return _Nodes(borders, _first_cell(low) >> CELL_BITS, torch.full_like(low, walk.depth))
        inner = borders[:, 1:-1]
        cell = inner & -_CELL
        named = (inner != cell) & (cell >= low[:, None]) & (cell + _CELL <= high[:, None])
        has, first = named.max(dim=1)
        code = cell.gather(1, first[:, None])[:, 0] >> CELL_BITS
        return _Nodes(
            borders,
            torch.where(has, code, nodes.code[parent]),
            torch.where(has, walk.depth, nodes.length[parent]),
        )

    def _borders(self, low: Tensor, high: Tensor, frequencies: Tensor) -> Tensor:
        cumulative = pad(frequencies.cumsum(dim=1), (1, 0))
        return low[:, None] + ((high - low)[:, None] * cumulative >> FREQUENCY_BITS)

    def _record(self, found: Tensor, lanes: Tensor, nodes: _Nodes, node: Tensor) -> None:
        found[lanes, 0], found[lanes, 1] = nodes.code[node], nodes.length[node]


def _first_cell(low: Tensor) -> Tensor:
    """Where the first whole cell at or after ``low`` begins."""
    return (low + _CELL - 1) & -_CELL
