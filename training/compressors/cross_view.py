r"""Drafts in the other view: the same weights go on with the text in compressed symbols, several bytes each.

The model knows two languages for one text. The raw text so far is written again as ``<comp>`` and its codes, with a
cache of its own; the likeliest next symbols are drafted there, one forward pass each, and what they spell is verified
in raw bytes in one. The draft is a fixed function of the text so far (no draw of the raw text enters it), so that the
argument of :mod:`proxybyte.verification` holds: the output is that of raw bytes alone, greedy or sampled. No
probability of a symbol takes part in it, and neither does the question in how many ways symbols could spell the same
bytes.

*Alignment.* A text may end in the middle of a symbol: after ``impor`` the codes that the compressor gives are not those
with which it begins ``import``. So the last code is taken back, and the first drafted symbol is the likeliest of those
that begin with its bytes. After a draft was verified, the end of the text is encoded again; the cache is kept up to the
first code that changed. Where codes differ from those of the whole text because only its end was encoded, drafts get
worse and the output stays what it is.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from proxybyte.drafting import Draft, Drafting, Texts
from proxybyte.errors import ProxyByteError
from proxybyte.row_cache import CACHE, EvaRowCache, RowCache, open_rows
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_BYTES, NUM_SPECIALS, Special, View, document_opening

from .spelling import Spelling

_ENCODED_AGAIN = 48
"""Bytes before the end of a text whose codes may change when it goes on."""
_SURE = 0.35
"""A draft goes on while it is at least so likely to be right as a whole, by the model's own account."""


@dataclass
class _Row:
    """One text in the compressed view.

    Attributes:
        text: bytes after its last special symbol.
        read: columns of the raw text that are in ``text`` or before it.
        symbols: of the compressed view, its opening included.
        ends: bytes of ``text`` that the codes up to each spell.
        held: symbols that the cache holds.
        draft: bytes drafted in this step, as symbols.
        likely: how likely each and all before it are right.
        sure: the same for the next; 0 if the draft cannot go on.
    """

    opening: list[int]
    text: bytearray = field(default_factory=bytearray)
    read: int = 0
    symbols: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    held: int = 0
    draft: list[int] = field(default_factory=list)
    likely: list[float] = field(default_factory=list)
    sure: float = 1.0

    def take_in(self, columns: list[int]) -> None:
        """Columns of the raw text that are new."""
        self.read += len(columns)
        for place in range(len(columns) - 1, -1, -1):
            if columns[place] < NUM_SPECIALS:
                columns = columns[place + 1 :]
                self.text.clear()
                self.ends.clear()
                break
        self.text += bytes(symbol - BYTE_OFFSET for symbol in columns if symbol < BYTE_OFFSET + NUM_BYTES)

    def encode(self, spelling: Spelling) -> bytes:
        """Bring the symbols up to the text but for its last code, whose bytes are returned; notes what is not held."""
        sure = next((i for i in range(len(self.ends), 0, -1) if self.ends[i - 1] <= len(self.text) - _ENCODED_AGAIN), 0)
        ends, start = self.ends[:sure], self.ends[sure - 1] if sure else 0
        codes = [int(code) for code in spelling.encode(bytes(self.text[start:]))]
        if start + sum(len(spelling.spelled[code]) for code in codes) == len(self.text):
            codes = codes[:-1]
        for code in codes:
            start += len(spelling.spelled[code])
            ends.append(start)
        kept = self.symbols[len(self.opening) : len(self.opening) + sure]
        symbols = [*self.opening, *kept, *(COMPRESSED_OFFSET + code for code in codes)]
        same = 0
        while same < min(self.held, len(symbols)) and symbols[same] == self.symbols[same]:
            same += 1
        # At least the last symbol is fed again, because what follows it is asked for.
        self.held = min(same, len(symbols) - 1)
        self.symbols, self.ends = symbols, ends
        self.draft, self.likely, self.sure = [], [], 1.0
        return bytes(self.text[start:])


@dataclass(frozen=True)
class CrossViewDrafter:
    """The model itself, in the compressed view: ``generate(draft=CrossViewDrafter(load_spelling(folder)))``.

    Attributes:
        spelling: of the compressor that the model was trained with.
    """

    spelling: Spelling

    def open(self, model: Any, most: int | None) -> Drafting:
        """As ``Drafter.open`` of ``proxybyte.drafting``; refuses the spelling of another compressor."""
        return CrossViewDrafting(model, self.spelling, most)


class CrossViewDrafting:
    """Drafts what the model would write in the compressed view.

    Args:
        model: a ``ProxyByteForCausalLM``.
        spelling: of the compressor that it was trained with.
        most: bytes after which a draft is long enough.

    Raises:
        ProxyByteError: if the spelling is that of another compressor.
    """

    takes_rows = False

    def __init__(self, model: Any, spelling: Spelling, most: int | None) -> None:
        if len(spelling.spelled) > model.config.num_compressed_symbols:
            raise ProxyByteError(
                f"the drafter's compressor spells {len(spelling.spelled)} symbols, the model has "
                f"{model.config.num_compressed_symbols}: take that of the compressor it was trained with"
            )
        self._model, self._spelling = model, spelling
        self.most = 16 if most is None else most
        self.forwards = 0
        self._opening = list(document_opening(model.config, View.COMPRESSED))
        self._texts: list[_Row] | None = None
        self._cache: EvaRowCache | RowCache | None = None

    def see(self, output: Any, at: list[int]) -> None:
        """Nothing: the raw view does not draft."""

    def keep(self, places: list[int]) -> None:
        """Drop all active rows but those at ``places``."""
        if self._texts is not None and places:
            self._texts = [self._texts[place] for place in places]
        if self._cache is not None and places:
            self._cache.keep(places)

    @torch.no_grad()
    def propose(self, texts: Texts, most: int) -> list[Draft]:
        """A draft for each active row, of ``most`` symbols or fewer."""
        if most <= 0:
            return [Draft([], []) for _ in texts.active]
        if self._texts is None:
            self._texts = [_Row(self._opening) for _ in texts.active]
        begun = []
        for row, number in zip(self._texts, texts.active, strict=True):
            row.take_in(texts.symbols(number, row.read))
            begun.append(row.encode(self._spelling))
        going = True
        while going:
            logits = self._feed(texts.pad, texts.device)
            going = False
            for row, scores, start in zip(self._texts, logits, begun, strict=True):
                self._draft_symbol(row, scores, start)
                going |= row.sure >= _SURE and len(row.draft) < most
            begun = [b""] * len(begun)
        return [Draft(row.draft, row.likely).cut(most) for row in self._texts]

    def _feed(self, pad: int, device: torch.device) -> torch.Tensor:
        """Feed each row what its cache does not hold; logits of what follows, shape ``(A, V)``."""
        rows = self._texts
        assert rows is not None
        self.forwards += 1
        if self._cache is None:
            return self._read(rows, pad, device)
        new = [row.symbols[row.held :] for row in rows]
        width = max(map(len, new))
        # What is too much for a row is written behind its end and forgotten.
        fed = torch.tensor([symbols + [pad] * (width - len(symbols)) for symbols in new], device=device)
        last = torch.tensor([len(symbols) - 1 for symbols in new], device=device)
        self._cache.rewind([row.held for row in rows])
        hidden = self._model.model(input_ids=fed, **self._cache.inputs(width)).last_hidden_state
        for row in rows:
            row.held = len(row.symbols)
        return self._model.lm_head(hidden[torch.arange(len(new), device=device), last])

    def _read(self, rows: list[_Row], pad: int, device: torch.device) -> torch.Tensor:
        """The same for the whole texts, which opens the cache."""
        width = max(len(row.symbols) for row in rows)
        fed = torch.full((len(rows), width), pad, device=device)
        mask = torch.zeros_like(fed)
        for number, row in enumerate(rows):
            fed[number, width - len(row.symbols) :] = torch.tensor(row.symbols, device=device)
            mask[number, width - len(row.symbols) :] = 1
            row.held = len(row.symbols)
        cache = DynamicCache(config=self._model.config)
        output = self._model(
            input_ids=fed, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        self._cache = open_rows(output[CACHE], mask, self._model.model.config)
        return output.logits[:, -1]

    def _draft_symbol(self, row: _Row, logits: torch.Tensor, start: bytes) -> None:
        """The likeliest next symbol of one row, of those that begin with ``start``; ``logits`` has shape ``(V,)``."""
        end = [] if start else [int(Special.COMPRESSED_CLOSE)]
        codes = self._spelling.beginning_with(start) + COMPRESSED_OFFSET
        choices = torch.cat([torch.from_numpy(codes), torch.tensor(end, dtype=torch.long)]).to(logits.device)
        if row.sure == 0.0 or not len(choices):
            # This row's draft is over, while others go on.
            row.symbols.append(int(Special.COMPRESSED_CLOSE))
            row.sure = 0.0
            return
        sure, best = logits[choices].to(torch.float32).softmax(-1).max(dim=-1)
        symbol = int(choices[best])
        row.symbols.append(symbol)
        row.sure *= float(sure)
        if symbol < COMPRESSED_OFFSET:
            new = [int(Special.RAW_CLOSE)]
        else:
            spelled = self._spelling.spelled[symbol - COMPRESSED_OFFSET]
            new = [BYTE_OFFSET + byte for byte in spelled[len(start) :]]
        row.draft += new
        row.likely += [row.sure] * len(new)
        if symbol < COMPRESSED_OFFSET:
            row.sure = 0.0
