r"""Next-byte distributions of an unmodified tokenizer model.

A text :math:`s` of bytes may end inside a token. With :math:`c(p)` the tokenizer's own coding of its first :math:`p`
bytes, and every token that may lie across its end taken into account,

.. math:: P(b \mid s) \propto \sum_{p \le |s|} P(c(p)) \sum_{v \text{ begins with } s_{p:}\, b} P(v \mid c(p)) ,

and the end of the text has :math:`P(c(|s|))\, P(\text{end} \mid c(|s|))`. This is the model's distribution given that
the tokens before the open one are the tokenizer's own (arXiv 2506.14123 calls what is summed over a covering; no beam
cuts it). What a model gives to other codings of the text before is left out, which the tests measure by brute force.
Only places :math:`p` from which some token could still go on count, a handful at a time, and each needs one step of the
model with its cache, so a byte costs about one forward pass of two tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedTokenizerFast

from proxybyte.errors import ProxyByteError
from proxybyte.row_cache import EvaRowCache, RowCache, open_rows
from proxybyte.symbols import NUM_BYTES

from ..compressors import encode_one
from ..compressors.bpe import BpeCompressor
from ..compressors.protocol import CannotEncode
from .embedding_rows import token_spellings
from .specials import text_end, text_start

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


END = NUM_BYTES
"""Column of the end of the text in a distribution."""


@dataclass
class _Open:
    """Tokens that begin at one place of a text and reach over its end.

    Attributes:
        log_chance: of the tokens before.
        sums: cumulative chances of the next token in the order of the vocabulary, shape ``(V + 1,)``.
        node: the bytes of it that the text holds.
    """

    log_chance: float
    sums: torch.Tensor
    node: int = ROOT


@dataclass
class _Row:
    """One text.

    Attributes:
        text: its bytes.
        held: tokens that the cache holds, the one that begins a text first.
        logs: log chance of the first ``1, 2, ...`` of them.
        open: places from which a token may still go on.
        ended: chance that the text ends here, given the tokens before; 0 where no token ends here.
        ended_log: log chance of those tokens.
    """

    held: list[int]
    text: bytearray = field(default_factory=bytearray)
    logs: list[float] = field(default_factory=lambda: [0.0])
    open: list[_Open] = field(default_factory=list)
    ended: float = 0.0
    ended_log: float = -np.inf


class ByteView:
    """An unmodified tokenizer model seen as one over bytes.

    Args:
        model: a causal language model of Transformers; put into evaluation mode.
        tokenizer: its fast tokenizer.

    Raises:
        ProxyByteError: if the tokenizer is slow or has no token that begins or ends a text.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ProxyByteError(f"bytes_of needs a fast tokenizer, but {type(tokenizer).__name__} is slow")
        start = text_start(tokenizer)
        if start is None:
            raise ProxyByteError(
                "bytes_of needs a token that begins a text: set the tokenizer's bos_token or eos_token"
            )
        self._model, self._start, self._end = model.eval(), start, text_end(tokenizer)
        self._coder = BpeCompressor(tokenizer.backend_tokenizer.to_str(), "tokenizer")
        spellings = token_spellings(self._coder)
        self._prefixes = Prefixes.build(spellings, model.device)
        self._longest = max((len(spelled) for spelled in spellings if spelled), default=1)

    @torch.no_grad()
    def next_byte(self, texts: Sequence[bytes]) -> torch.Tensor:
        """Distribution of what follows each text: 256 bytes, then its end; float64, shape ``(len(texts), 257)``."""
        return self._said(self._open(texts)[0])

    @torch.no_grad()
    def bits(self, texts: Sequence[bytes]) -> list[float]:
        """Bits of each text, its end left out: minus the sum over its bytes of the log of their chances."""
        rows, cache = self._open([b""] * len(texts))
        totals = [0.0] * len(texts)
        for place in range(max(map(len, texts), default=0)):
            said = self._said(rows).cpu()
            for number, text in enumerate(texts):
                if place < len(text):
                    totals[number] -= float(said[number, text[place]].log2())
            self._write(rows, cache, [text[place] if place < len(text) else None for text in texts])
        return totals

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[bytes], max_new_bytes: int, *, do_sample: bool = False, seed: int = 0
    ) -> list[bytes]:
        """What follows each prompt, up to its end or ``max_new_bytes``: the likeliest byte each time, or a draw."""
        rows, cache = self._open(prompts)
        generator = torch.Generator().manual_seed(seed)
        new = [bytearray() for _ in prompts]
        going = [True] * len(prompts)
        for _ in range(max_new_bytes):
            said = self._said(rows).cpu()
            chosen = torch.multinomial(said, 1, generator=generator)[:, 0] if do_sample else said.argmax(dim=1)
            going = [on and int(byte) != END for on, byte in zip(going, chosen, strict=True)]
            if not any(going):
                break
            written = [int(byte) if on else None for on, byte in zip(going, chosen, strict=True)]
            for text, byte in zip(new, written, strict=True):
                text += b"" if byte is None else bytes([byte])
            self._write(rows, cache, written)
        return [bytes(text) for text in new]

    def _open(self, texts: Sequence[bytes]) -> tuple[list[_Row], EvaRowCache | RowCache]:
        rows = [_Row([self._start], bytearray(text)) for text in texts]
        opening = torch.full((len(rows), 1), self._start, device=self._model.device)
        cache = DynamicCache(config=self._model.config)
        filled = self._model(input_ids=opening, past_key_values=cache, use_cache=True).past_key_values
        by_row = open_rows(filled, None, self._model.config)
        waiting = [self._places(bytes(row.text)) for row in rows]
        while any(waiting):
            at = [places.pop(0) if places else None for places in waiting]
            self._read(rows, by_row, at)
        return rows, by_row

    def _places(self, text: bytes) -> list[tuple[int, int]]:
        """Places of a text from which some token goes on over its end, and what of the token lies before it."""
        first = max(0, len(text) - self._longest)
        tail = torch.tensor([*text[first:], 0], device=self._prefixes.order.device)
        starts = torch.arange(len(tail), device=tail.device)
        nodes = self._prefixes.walk(tail, starts, len(tail))
        at_end = nodes[starts, len(tail) - 1 - starts].tolist()
        return [(first + place, node) for place, node in enumerate(at_end) if node >= 0]

    def _write(self, rows: list[_Row], cache: EvaRowCache | RowCache, bytes_: list[int | None]) -> None:
        """Put a byte behind each text that goes on."""
        at: list[tuple[int, int] | None] = []
        for row, byte in zip(rows, bytes_, strict=True):
            if byte is None:
                at.append(None)
                continue
            nodes = torch.tensor([place.node for place in row.open], device=self._prefixes.order.device)
            for place, node in zip(row.open, self._prefixes.children(nodes, torch.tensor(byte)).tolist(), strict=True):
                place.node = node
            row.open = [place for place in row.open if place.node >= 0]
            row.text.append(byte)
            at.append((len(row.text), ROOT))
        self._read(rows, cache, at)

    def _read(self, rows: list[_Row], cache: EvaRowCache | RowCache, at: list[tuple[int, int] | None]) -> None:
        """Ask each row for the token that begins at a place of its text; ``None`` asks nothing."""
        fed, kept = [], []
        for row, place in zip(rows, at, strict=True):
            wanted = row.held if place is None else self._tokens(row, place[0])
            same = 1
            while same < min(len(wanted), len(row.held)) and wanted[same] == row.held[same]:
                same += 1
            # One that is held is fed again: what it says of the first new one is not kept.
            kept.append(same - 1)
            fed.append(wanted[same - 1 :])
            row.held, row.logs = wanted, row.logs[:same]
        width = max(map(len, fed))
        padded = torch.tensor(
            [tokens + tokens[-1:] * (width - len(tokens)) for tokens in fed], device=self._model.device
        )
        cache.rewind(kept)
        logits = self._model(input_ids=padded, **cache.inputs(width)).logits
        for number, (row, place, tokens) in enumerate(zip(rows, at, fed, strict=True)):
            logs = logits[number, : len(tokens)].double().log_softmax(dim=-1)
            for step, token in enumerate(tokens[1:]):
                row.logs.append(row.logs[-1] + float(logs[step, token]))
            if place is not None:
                self._note(row, place, logs[-1].exp())

    def _note(self, row: _Row, place: tuple[int, int], chances: torch.Tensor) -> None:
        sums = self._prefixes.cumulated(chances[None, : self._coder.num_symbols])[0]
        row.open.append(_Open(row.logs[-1], sums, place[1]))
        if place[0] == len(row.text) and self._end is not None:
            row.ended, row.ended_log = float(chances[self._end]), row.logs[-1]

    def _tokens(self, row: _Row, place: int) -> list[int]:
        """The token that begins a text and the coding of the first bytes of this one.

        Raises:
            ProxyByteError: if the tokenizer cannot code them.
        """
        try:
            return [self._start, *encode_one(self._coder, bytes(row.text[:place])).tolist()]
        except CannotEncode as error:
            raise ProxyByteError(f"the tokenizer cannot code the first {place} bytes of a text: {error}") from error

    def _said(self, rows: list[_Row]) -> torch.Tensor:
        said = torch.zeros(len(rows), NUM_BYTES + 1, dtype=torch.float64, device=self._prefixes.order.device)
        for number, row in enumerate(rows):
            logs = torch.tensor([*(place.log_chance for place in row.open), row.ended_log], dtype=torch.float64)
            shares = (logs - logs.max()).exp().to(said.device)
            nodes = torch.tensor([place.node for place in row.open], device=said.device)
            sums = torch.stack([place.sums for place in row.open])
            places = torch.arange(len(nodes), device=said.device)
            said[number, :NUM_BYTES] = shares[:-1] @ self._prefixes.next_bytes(sums, places, nodes)
            said[number, END] = shares[-1] * row.ended
        return said / said.sum(dim=1, keepdim=True)


def bytes_of(model: Any, tokenizer: PreTrainedTokenizerFast) -> ByteView:
    """An unmodified tokenizer model as one over bytes; arguments and errors as for :class:`ByteView`."""
    return ByteView(model, tokenizer)
