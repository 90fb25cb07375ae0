"""Negative log-likelihood of many sequences under a causal model, in few and full forward passes.

Windows are sorted by length and stacked into right-padded batches of about the same number of positions. Attention is
causal, so padding on the right changes nothing before it: no attention mask is needed, every backend keeps its fastest
path, and no window can see another (packing several into a row would rest on ``position_ids`` alone, and pay for
attention across them).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel

from proxybyte.errors import ProxyByteError
from proxybyte.progress import Progress
from proxybyte.symbols import IGNORE_INDEX, NUM_RAW_SYMBOLS


@dataclass(frozen=True)
class WindowRule:
    """How sequences are cut.

    Attributes:
        window: symbols of the sequence in one window, its prefix not counted.
        stride: distance between the starts of two windows; ``window`` means that windows do not overlap.

    Raises:
        ProxyByteError: unless ``1 <= stride <= window``.
    """

    window: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window:
            raise ProxyByteError(f"stride {self.stride} must lie between 1 and the window, {self.window}")


@dataclass(frozen=True)
class WindowTable:
    """Windows of many sequences, each attribute an int64 array of shape ``(windows,)``.

    Attributes:
        sequence: index of the sequence; ascending.
        start: first symbol of the window, as an offset into the sequence.
        score_from: first symbol that this window scores, ``start <= score_from < end``.
        end: one past the last symbol of the window.
    """

    sequence: np.ndarray
    start: np.ndarray
    score_from: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def lengths(self) -> np.ndarray:
        """Symbols in each window."""
        return self.end - self.start


def plan_windows(lengths: np.ndarray, rule: WindowRule, score_from: np.ndarray | None = None) -> WindowTable:
    """Lay out the windows of sequences of ``lengths`` symbols.

    Args:
        lengths: symbols in each sequence, shape ``(S,)``.
        rule: how to cut.
        score_from: first symbol to score in each, shape ``(S,)`` (the symbols before it are context alone); 0 for all
            when absent. Context that is out of every window's reach is dropped from the left.

    Returns:
        The windows, in the order of the sequences. A sequence with nothing to score has none.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    first = np.zeros_like(lengths) if score_from is None else np.asarray(score_from, dtype=np.int64)
    kept_context = rule.window - rule.stride
    base = np.maximum(0, np.minimum(first - kept_context, lengths - rule.window))
    later = -(-np.maximum(0, lengths - base - rule.window) // rule.stride)
    counts = np.where(lengths > first, 1 + later, 0)

    sequence = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(sequence)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = base[sequence] + number * rule.stride
    end = np.minimum(lengths[sequence], start + rule.window)
    scored = np.where(number == 0, first[sequence], start + kept_context)
    return WindowTable(sequence=sequence, start=start, score_from=scored, end=end)


DEFAULT_POSITIONS = 2048
"""Positions of a model whose configuration names no limit."""
LOGITS_IN_A_PASS = 5 << 26
"""Elements of logits that one forward pass may return (1.3 GB in float32), unless one window alone has more."""
_SHORTEST_BESIDE = 0.75
"""Length of the shortest window in a batch, as a share of the longest: the rest of its row is padding."""
_LOGITS_AT_ONCE = 1 << 24
"""Elements of logits that the loss works on at a time, in float32 (64 MiB)."""


@dataclass(frozen=True)
class Scoring:
    """How to score; the defaults suit any model.

    Attributes:
        window: symbols in one window besides its prefix; by default what the model's position limit leaves.
        stride: distance between windows; half of ``window`` by default.
        batch_positions: positions in one forward pass; by default 16,384 on an accelerator and 4,096 on a CPU, fewer
            where the logits of a large vocabulary would not fit.
        progress: show a bar on stderr if it takes longer than two seconds.
    """

    window: int | None = None
    stride: int | None = None
    batch_positions: int | None = None
    progress: bool = False


DEFAULT_SCORING = Scoring()


@dataclass(frozen=True)
class Sequences:
    """What to score, read piece by piece so that no copy of a corpus is made.

    Attributes:
        prefix: ids that open every window, at least one (the first symbol of a sequence is scored too).
        lengths: symbols in each sequence, shape ``(S,)``.
        read: ``read(i, start, end)`` gives symbols ``start .. end - 1`` of sequence ``i`` as integers.
        score_from: first symbol to score in each sequence, shape ``(S,)``; ``None`` scores all.
        raw: every symbol is a raw byte. A proxy model is then scored as it runs on raw bytes, with its first 320 rows
            alone, which is what generation and a native export do.
    """

    prefix: tuple[int, ...]
    lengths: np.ndarray
    read: Callable[[int, int, int], np.ndarray]
    score_from: np.ndarray | None = None
    raw: bool = False


@dataclass(frozen=True)
class Scores:
    """Result of :func:`score_sequences`.

    Attributes:
        nats: negative log-likelihood of each sequence's scored symbols, float64, shape ``(S,)``.
        greedy: whether each scored symbol was the model's first choice, shape ``(S,)``; only where asked for.
        n_positions: symbols fed to the model, prefixes and repeated context included, padding not.
    """

    nats: np.ndarray
    greedy: np.ndarray | None
    n_positions: int


@dataclass(frozen=True)
class _Passes:
    """How forward passes are made: how many positions in one, and whether losses come from its logits."""

    positions: int
    by_logits: bool
    raw_rows: bool
    """Compute and return the head's rows for raw symbols only (a proxy model's)."""


@dataclass(frozen=True)
class _Batch:
    """Windows that share a forward pass.

    Attributes:
        windows: their rows in the window table, shape ``(B,)``.
        input_ids: shape ``(B, T)``, padded on the right with 0.
        labels: shape ``(B, T)``, ``IGNORE_INDEX`` where nothing is scored.
        first_scored: the first column of ``labels`` in which something is.
    """

    windows: np.ndarray
    input_ids: torch.Tensor
    labels: torch.Tensor
    first_scored: int


def bare(model: Any) -> Any:
    """The model without what training wrapped it in: replicas add nothing here, and compiling would start over for
    each new shape of batch.
    """
    return extract_model_from_parallel(model, keep_torch_compile=False)


def position_limit(model: Any) -> int:
    """Positions that the model was made for."""
    return getattr(model.config, "max_position_embeddings", None) or DEFAULT_POSITIONS


def window_rule(model: Any, scoring: Scoring, prefix_length: int) -> WindowRule:
    """The rule that ``scoring`` asks for, with what it leaves open filled in from the model's position limit."""
    window = scoring.window or max(1, position_limit(model) - prefix_length)
    return WindowRule(window=window, stride=scoring.stride or max(1, window // 2))


def score_sequences(model: Any, sequences: Sequences, scoring: Scoring, *, want_greedy: bool = False) -> Scores:
    """Score every sequence, each on its own.

    Args:
        model: a causal language model of Transformers, or ``ProxyByteForCausalLM``; scored in evaluation mode and put
            back as it was. Its precision is its own; sums are float64.
        sequences: what to score.
        scoring: how.
        want_greedy: also tell whether each sequence is what greedy decoding would have written.
    """
    model = bare(model)
    rule = window_rule(model, scoring, len(sequences.prefix))
    table = plan_windows(sequences.lengths, rule, sequences.score_from)
    nats = np.zeros(len(sequences.lengths))
    greedy = np.ones(len(sequences.lengths), dtype=bool)
    n_positions = int(table.lengths.sum()) + len(sequences.prefix) * len(table)

    was_training = model.training
    model.eval()
    bar = Progress(
        total=n_positions, unit="sym", unit_scale=True, delay=2, disable=not scoring.progress, desc="scoring"
    )
    try:
        # Not inference_mode: parameters that FSDP gathers inside it could not be trained on afterwards.
        with torch.no_grad(), bar:
            for batch, losses, firsts in _forward_all(model, sequences, table, scoring, want_greedy):
                rows = table.sequence[batch.windows]
                np.add.at(nats, rows, losses.cpu().double().sum(1).numpy())
                if firsts is not None:
                    np.logical_and.at(greedy, rows, firsts.cpu().numpy())
                bar.update(int(table.lengths[batch.windows].sum()) + len(sequences.prefix) * len(batch.windows))
    finally:
        model.train(was_training)
    return Scores(nats=nats, greedy=greedy if want_greedy else None, n_positions=n_positions)


def _forward_all(
    model: Any, sequences: Sequences, table: WindowTable, scoring: Scoring, want_greedy: bool
) -> Iterator[tuple[_Batch, torch.Tensor, torch.Tensor | None]]:
    """Each batch with losses ``(B, *)`` to sum and first choices ``(B,)``, one behind the device's work.

    The next pass is queued before a result is handed out, so that an accelerator never waits for the copy back.
    """
    passes = _plan_passes(model, sequences.raw, table, scoring, want_greedy)
    behind = None
    for batch in _batches(sequences, table, passes.positions, model.device):
        if passes.by_logits:
            outcome = batch, *_losses_from_logits(model, batch, passes.raw_rows, want_greedy)
        else:
            output = model(
                input_ids=batch.input_ids,
                labels=batch.labels,
                use_cache=False,
                next_symbol_only=True,
                return_logits=False,
            )
            outcome = batch, output.target_nll, None
        if behind is not None:
            yield behind
        behind = outcome
    if behind is not None:
        yield behind


def gives_target_nll(model: Any) -> bool:
    """Whether the model's output has ``target_nll`` (docs/architecture.md), so that no logits need be held."""
    return model.config.model_type == "proxybyte"


def _plan_passes(model: Any, raw: bool, table: WindowTable, scoring: Scoring, want_greedy: bool) -> _Passes:
    """Logits while they fit, because those of unscored context can be left out; else ``target_nll`` where there is."""
    raw_rows = raw and gives_target_nll(model)
    vocab_size = NUM_RAW_SYMBOLS if raw_rows else model.config.get_text_config().vocab_size
    positions = scoring.batch_positions or (4096 if model.device.type == "cpu" else 16384)
    longest = int(table.lengths.max(initial=0))
    fits = max(positions, longest) * vocab_size <= LOGITS_IN_A_PASS
    by_logits = raw_rows or want_greedy or fits or not gives_target_nll(model)
    if by_logits and scoring.batch_positions is None:
        positions = min(positions, LOGITS_IN_A_PASS // vocab_size)
    return _Passes(positions, by_logits, raw_rows)


def _batches(sequences: Sequences, table: WindowTable, positions: int, device: torch.device) -> Iterator[_Batch]:
    """Longest windows first, so that a batch too large for the device fails at once and not after an hour; among
    equals those with the same context side by side, so that its logits can be left out.
    """
    context = table.score_from - table.start
    order = np.lexsort((context, -table.lengths))
    falling = -(table.lengths[order] + len(sequences.prefix))
    first = 0
    while first < len(order):
        alike = int(np.searchsorted(falling, _SHORTEST_BESIDE * falling[first], side="right"))
        end = min(first + max(1, positions // -int(falling[first])), alike)
        yield _stack(sequences, table, order[first:end], device)
        first = end


def _stack(sequences: Sequences, table: WindowTable, windows: np.ndarray, device: torch.device) -> _Batch:
    opening = len(sequences.prefix)
    shape = (len(windows), opening + int(table.lengths[windows].max()))
    input_ids = np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    input_ids[:, :opening] = sequences.prefix
    for row, window in enumerate(windows):
        start, scored, end = (int(column[window]) for column in (table.start, table.score_from, table.end))
        symbols = sequences.read(int(table.sequence[window]), start, end)
        input_ids[row, opening : opening + end - start] = symbols
        labels[row, opening + scored - start : opening + end - start] = symbols[scored - start :]
    context = table.score_from[windows] - table.start[windows]
    return _Batch(
        windows=windows,
        input_ids=torch.from_numpy(input_ids).to(device, non_blocking=True),
        labels=torch.from_numpy(labels).to(device, non_blocking=True),
        first_scored=opening + int(context.min()),
    )


def _losses_from_logits(
    model: Any, batch: _Batch, raw_rows: bool, want_greedy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Losses ``(B, K)`` of the columns from the first scored one, in float32 at least, 0 where nothing is scored; and
    whether each row's scored symbols are the model's first choices, ``(B,)``, if wanted.
    """
    before = batch.first_scored - 1
    options: dict[str, Any] = {"raw_symbols_only": True} if raw_rows else {}
    if model._supports_logits_to_keep():
        options["logits_to_keep"] = batch.input_ids.shape[1] - before
    logits = model(input_ids=batch.input_ids, use_cache=False, **options).logits
    logits = logits[:, before - batch.input_ids.shape[1] :, : NUM_RAW_SYMBOLS if raw_rows else None]
    shape = logits.shape[:2]
    # A target for the last position too, so that the logits need no copy to leave it out.
    targets = F.pad(batch.labels[:, batch.first_scored :], (0, 1), value=IGNORE_INDEX).flatten()
    precision = torch.promote_types(logits.dtype, torch.float32)
    step = max(1, _LOGITS_AT_ONCE // logits.shape[-1])
    losses, misses = [], []
    for rows, wanted in zip(logits.flatten(0, 1).split(step), targets.split(step), strict=True):
        losses.append(F.cross_entropy(rows.to(precision), wanted, ignore_index=IGNORE_INDEX, reduction="none"))
        if want_greedy:
            misses.append((rows.argmax(-1) != wanted) & (wanted != IGNORE_INDEX))
    firsts = ~torch.cat(misses).view(shape).any(1) if want_greedy else None
    return torch.cat(losses).view(shape), firsts
