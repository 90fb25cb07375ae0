r"""How far what a model learnt in one view serves it in the other.

* **Both views**: bits per byte of the same documents as bytes and as the compressor's symbols.
* **Oracle translation**: one view of a document stands in the context, and the model writes the other, greedily, up to
  its closing sentinel: ``<comp> codes </comp><raw>`` and then bytes, or the other way round. Reported are exact
  matches, the edit distance between the bytes written and the document's, over the longer of the two, and
  the bits per byte of the right answer given the context, which a document that it has never seen twice would cost.
* **Continuation**: the same first part of a document as bytes and as symbols, continued through either; how many bytes
  are right before the first wrong one, and how many forward passes a byte takes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from proxybyte.artefacts import ModelFolder, find_model
from proxybyte.byte_codec import decode_bytes, encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.eval.bpb import embedding_rows, translation_bits_per_byte
from proxybyte.eval.code.judging import Bench, run_known
from proxybyte.eval.code.pass_at_k import Estimate, estimate
from proxybyte.eval.code.problems import Problem
from proxybyte.eval.loading import ModelKind, load_model, model_kind
from proxybyte.eval.sandbox import Trial
from proxybyte.eval.scoring import Scoring, bare, position_limit
from proxybyte.progress import Progress
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_RAW_SYMBOLS, View, document_opening
from proxybyte.training import CannotEncode, Compressor, load_compressor


@dataclass(frozen=True)
class TwoViewModel:
    """A model that reads bytes and a compressor's symbols.

    Attributes:
        model: in evaluation mode.
        compressor: the one that it was trained with.
    """

    model: Any
    compressor: Compressor


@dataclass(frozen=True)
class Pair:
    """One document in both views.

    Attributes:
        text: its bytes, not empty.
        codes: the compressor's codes of them, numbered from 0.
    """

    text: bytes
    codes: np.ndarray


def load_two_views(folder: str | Path, compressor: str | None, device: str, dtype: str) -> TwoViewModel:
    """A proxy model with its compressor.

    Args:
        folder: what :func:`~proxybyte.artefacts.find_model` takes.
        compressor: name or folder of the compressor; the one that it carries if absent.
        device: of PyTorch, or ``"auto"``.
        dtype: as for :func:`~.loading.load_model`.

    Raises:
        ProxyByteError: if there is no model or no compressor, or the model does not read the compressor's symbols.
    """
    found = find_model(folder)
    model = load_model(found, device, dtype)
    if model_kind(model) is ModelKind.TOKENS:
        raise ProxyByteError(f"{folder} is a tokenizer model: transfer is measured on models that read bytes as well")
    rows = embedding_rows(model) - COMPRESSED_OFFSET
    if rows <= 0:
        raise ProxyByteError(f"{folder} reads raw bytes alone: it has no rows for compressed symbols")
    loaded = load_compressor(compressor or _carried(found, folder))
    if loaded.num_symbols > rows:
        raise ProxyByteError(
            f"{folder} has rows for {rows} compressed symbols, but {loaded.name} has {loaded.num_symbols}: "
            "give the compressor that the model was trained with"
        )
    return TwoViewModel(model, loaded)


def _carried(found: ModelFolder, asked: str | Path) -> Path:
    if found.compressor is not None:
        return found.compressor
    raise ProxyByteError(
        f"{asked} carries no compressor, so nothing can be written in its symbols: give --compressor, or a run or full "
        "export that has one"
    )


def pair_up(documents: Sequence[bytes], compressor: Compressor, max_bytes: int) -> tuple[list[Pair], int]:
    """Heads of documents in both views, and how many were left out for want of a code.

    Raises:
        ProxyByteError: if none is left.
    """
    heads = [document[:max_bytes] for document in documents if document]
    codes = compressor.encode_batch(heads)
    pairs = [Pair(text, code) for text, code in zip(heads, codes, strict=True) if not isinstance(code, CannotEncode)]
    if not pairs:
        raise ProxyByteError(f"{compressor.name} can code none of the {len(heads)} documents")
    return pairs, len(heads) - len(pairs)


_SLACK = 16
"""Symbols that an answer may be longer than the right one before it is cut."""


class Direction(StrEnum):
    """From which view to which."""

    TO_RAW = "compressed to raw"
    TO_COMPRESSED = "raw to compressed"

    @property
    def target(self) -> View:
        """The view that the model writes."""
        return View.RAW if self is Direction.TO_RAW else View.COMPRESSED


@dataclass(frozen=True)
class Written:
    """What a model wrote for one document.

    Attributes:
        expected: the bytes that would be right.
        produced: the bytes that its symbols spell; empty where they spell none.
        symbols: how many it wrote, without the closing sentinel.
        ended: whether it closed the view itself.
    """

    expected: bytes
    produced: bytes
    symbols: int
    ended: bool

    @property
    def exact(self) -> bool:
        """Whether it is right to the last byte, and ends there."""
        return self.ended and self.produced == self.expected

    @property
    def distance(self) -> float:
        """Levenshtein distance between produced and expected bytes, over the longer one: 0 equal, 1 nothing alike."""
        return Levenshtein.normalized_distance(self.produced, self.expected)

    @property
    def right_bytes(self) -> int:
        """Bytes before the first wrong one."""
        pairs = zip(self.produced, self.expected, strict=False)
        return next(
            (place for place, (a, b) in enumerate(pairs) if a != b), min(len(self.produced), len(self.expected))
        )


def view_symbols(pair: Pair, view: View) -> np.ndarray:
    """A document's symbols in one view, int64."""
    if view is View.RAW:
        return encode_bytes(pair.text, np.int64)
    return pair.codes.astype(np.int64) + COMPRESSED_OFFSET


def translate(two: TwoViewModel, pairs: Sequence[Pair], direction: Direction, progress: bool = False) -> list[Written]:
    """Write the other view of each document, given one; greedy, one document at a time.

    What is produced are plain bytes, so a set of programs can be translated here and judged elsewhere.

    Raises:
        ProxyByteError: if a document does not fit into the model's positions twice.
    """
    check_fits(two, pairs)
    written = []
    for pair in Progress(pairs, desc=direction, unit="doc", delay=2, disable=not progress):
        prompt = _context(two, pair, direction)
        limit = len(view_symbols(pair, direction.target)) * 5 // 4 + _SLACK
        room = position_limit(two.model) - len(prompt)
        symbols, ended = write_greedily(two.model, prompt, direction.target, min(limit, room))
        produced = spell(two.compressor, symbols, direction.target)
        written.append(Written(pair.text, produced, len(symbols), ended))
    return written


def continue_text(two: TwoViewModel, pairs: Sequence[Pair], view: View, progress: bool = False) -> list[Written]:
    """Continue the first half of each document through one view, as long as the second half; greedy."""
    written = []
    for pair in Progress(pairs, desc=f"continuing {view}", unit="doc", delay=2, disable=not progress):
        half = max(1, len(pair.text) // 2)
        (code,) = two.compressor.encode_batch([pair.text[:half]])
        if not isinstance(code, np.ndarray) or half == len(pair.text):
            continue
        start = view_symbols(Pair(pair.text[:half], code), view)
        prompt = [*document_opening(bare(two.model).config, view), *start.tolist()]
        wanted = pair.text[half:]
        # Symbols of no more than the bytes that are wanted; one symbol stands for one byte at least.
        rate = 1.0 if view is View.RAW else len(pair.codes) / len(pair.text)
        limit = min(math.ceil(len(wanted) * rate), position_limit(two.model) - len(prompt))
        symbols, ended = write_greedily(two.model, prompt, view, limit)
        written.append(Written(wanted, spell(two.compressor, symbols, view), len(symbols), ended))
    return written


def translation_bpb(two: TwoViewModel, pairs: Sequence[Pair], direction: Direction) -> float:
    """Bits per byte of text of the right answer, with the other view in the context.

    Raises:
        ProxyByteError: if a document does not fit into the model's positions twice.
    """
    check_fits(two, pairs)
    texts, codes = [pair.text for pair in pairs], [pair.codes for pair in pairs]
    found = translation_bits_per_byte(two.model, texts, codes, direction.target, Scoring(progress=True))
    return found.bits_per_byte


def write_greedily(model: Any, prompt: Sequence[int], view: View, limit: int) -> tuple[list[int], bool]:
    """The likeliest symbols of ``view``, one after the other, up to its closing sentinel or ``limit`` symbols.

    Args:
        model: ``ProxyByteForCausalLM`` in evaluation mode.
        prompt: ids, the opening sentinel among them.
        view: the view that is open; no symbol of another is written.
        limit: at most so many.

    Returns:
        The symbols without the sentinel, and whether it was written.
    """
    rows = model.get_input_embeddings().num_embeddings
    allowed = torch.zeros(rows, dtype=torch.bool, device=model.device)
    first, last = (BYTE_OFFSET, NUM_RAW_SYMBOLS) if view is View.RAW else (COMPRESSED_OFFSET, rows)
    allowed[first:last] = True
    allowed[view.close] = True
    ids = torch.tensor([list(prompt)], device=model.device)
    cache: Any = None
    symbols: list[int] = []
    with torch.no_grad():
        while len(symbols) < limit:
            output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            symbol = int(output.logits[0, -1].masked_fill(~allowed, -torch.inf).argmax())
            if symbol == view.close:
                return symbols, True
            symbols.append(symbol)
            cache, ids = output.past_key_values, torch.tensor([[symbol]], device=model.device)
    return symbols, False


def spell(compressor: Compressor, symbols: Sequence[int], view: View) -> bytes:
    """Bytes that symbols of a view stand for; empty where a compressor's spell nothing."""
    if view is View.RAW:
        return decode_bytes(symbols)
    codes = np.asarray(symbols, np.int64) - COMPRESSED_OFFSET
    if len(codes) and int(codes.max()) >= compressor.num_symbols:  # rows beyond the compressor's, if a model has any
        return b""
    try:
        return compressor.decode(codes)
    except ProxyByteError:
        return b""


def _context(two: TwoViewModel, pair: Pair, direction: Direction) -> list[int]:
    """The given view, closed, and the opening of the wanted one, as in a translation pair."""
    given = View.COMPRESSED if direction.target is View.RAW else View.RAW
    opening = document_opening(bare(two.model).config, given)
    return [*opening, *view_symbols(pair, given).tolist(), int(given.close), int(direction.target.open)]


def symbols_of_both(pair: Pair) -> int:
    """Positions that a document takes in both views, sentinels and prefix among them."""
    return len(pair.text) + len(pair.codes) + 5


def fitting_bytes(two: TwoViewModel, texts: Sequence[bytes], most: int) -> int:
    """How many bytes of each text, ``most`` at most, the model's positions hold in both views."""
    limit, size = position_limit(two.model), most
    while size > 1 and max(map(symbols_of_both, pair_up(texts, two.compressor, size)[0])) > limit:
        size = max(1, size * 7 // 8)
    return size


def check_fits(two: TwoViewModel, pairs: Sequence[Pair]) -> None:
    """Refuse documents that are too long for the model in both views.

    Raises:
        ProxyByteError: naming the first.
    """
    limit = position_limit(two.model)
    for number, pair in enumerate(pairs):
        needed = symbols_of_both(pair)
        if needed > limit:
            raise ProxyByteError(
                f"document {number} takes {needed} symbols in both views, but the model knows {limit} positions: "
                "lower --translate-bytes"
            )


@dataclass(frozen=True)
class Programs:
    """Published solutions as documents.

    Attributes:
        problems: those whose solution has codes and fits into the model in both views.
        pairs: each solution in both views, in the order of ``problems``.
        left_out: how many others there are.
    """

    problems: list[Problem]
    pairs: list[Pair]
    left_out: int


@dataclass(frozen=True)
class TranslatedPrograms:
    """What came of translating programs in one direction.

    Attributes:
        written: the translations.
        pass_at_1: share of them that pass their tests (one greedy sample each), with its interval.
    """

    written: list[Written]
    pass_at_1: Estimate


def programs_in_both_views(two: TwoViewModel, problems: Sequence[Problem]) -> Programs:
    """The published solutions, signature and docstring included, that ``two`` can hold in both views at once.

    Raises:
        ProxyByteError: if none fits.
    """
    texts = [f"{problem.head}{problem.canonical}".encode() for problem in problems]
    limit = position_limit(two.model)
    kept, pairs = [], []
    for problem, text, codes in zip(problems, texts, two.compressor.encode_batch(texts), strict=True):
        if not isinstance(codes, CannotEncode) and symbols_of_both(Pair(text, codes)) <= limit:
            kept.append(problem)
            pairs.append(Pair(text, codes))
    if not kept:
        raise ProxyByteError(
            f"none of the {len(problems)} solutions fits into the model's {limit} positions in both views: "
            "train with longer rows to measure this"
        )
    return Programs(kept, pairs, len(problems) - len(kept))


def translate_programs(
    two: TwoViewModel, programs: Programs, direction: Direction, bench: Bench, progress: bool = False
) -> TranslatedPrograms:
    """Translate each program and run what comes out, behind the walls of ``bench``, against its problem's tests."""
    written = translate(two, programs.pairs, direction, progress)
    # Bytes that are no UTF-8 are no program either: what stands in their place does not compile.
    sources = [
        Trial(f"{one.produced.decode('utf-8', 'replace')}\n", problem.separate_tests)
        for one, problem in zip(written, programs.problems, strict=True)
    ]
    passed = [outcome.passed for outcome in run_known(sources, bench)]
    return TranslatedPrograms(written, estimate(np.array(passed, np.float64)))
