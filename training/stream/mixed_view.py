"""From plan rows to tensors: random access to packed rows of mixed views.

``MixedViewDataset[row]`` is a pure function of the plan and the prepared split. Rows are built many at a time: where
each sentinel and each span of text goes is computed with NumPy over the whole batch, and only the copies of text are
a Python loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, IGNORE_INDEX, Special, View

from .placement import Offsets, Segments
from .plan import PlanConfig, StreamPlan
from .plan_report import report
from .prepared import PreparedSplit

BAG = COMPRESSED_OFFSET
"""What stands for a bag of bytes among symbols; no row of a model."""
PACKED_COLUMNS = ("input_ids", "position_ids", "labels")
# Plain integers: an enum member in array arithmetic costs a method call each time.
PAD, BOS, EOS = int(Special.PAD), int(Special.BOS), int(Special.EOS)
_VIEWS = (View.RAW, View.COMPRESSED)
_OPEN = np.array([view.open for view in _VIEWS], np.int64)
_CLOSE = np.array([view.close for view in _VIEWS], np.int64)
# Where nothing tells the views apart, a prompt still begins as a raw document does.
_ONE_OPEN, _ONE_CLOSE = np.full_like(_OPEN, View.RAW.open), np.full_like(_CLOSE, View.RAW.close)


@dataclass(frozen=True)
class RowBatch:
    """Packed rows as arrays of shape ``(rows, row_length)``, int64.

    Attributes:
        rows: the plan's row numbers.
        input_ids: symbols; unused slots hold ``<pad>``.
        position_ids: positions, from 0 at the start of each document (or of what a row shows of it); without document
            masking, from 0 at the start of the row.
        labels: as ``input_ids``, with -100 where a position is no target: the first symbol of each document, unused
            slots, and a closing sentinel right after a reopened one.
        text_bytes: bytes of source text that the symbols of each view stand for, over the batch.
        bags: of superposed plans, the bytes (as symbols) of each bag, ``<pad>`` where there is none, shape
            ``(rows, row_length, s)``. ``input_ids`` and ``labels`` hold :data:`BAG` where a bag stands.
    """

    rows: tuple[int, ...]
    input_ids: np.ndarray
    position_ids: np.ndarray
    labels: np.ndarray
    text_bytes: dict[View, float]
    bags: np.ndarray | None = None


@dataclass(frozen=True)
class PackedBatch:
    """A :class:`RowBatch` as tensors, ready for ``ProxyByteForCausalLM.forward``."""

    rows: tuple[int, ...]
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    text_bytes: dict[View, float]
    bags: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> "PackedBatch":
        """The batch on ``device``."""
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            bags=None if self.bags is None else self.bags.to(device, non_blocking=True),
        )

    def model_inputs(self) -> dict[str, torch.Tensor | bool]:
        """Keyword arguments of ``forward``. Documents stay apart by ``position_ids``, which needs the cache off."""
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "labels": self.labels,
            "use_cache": False,
        }

    @property
    def num_targets(self) -> int:
        """Positions that are targets."""
        return int((self.labels[:, 1:] != IGNORE_INDEX).sum())


@dataclass(frozen=True)
class _Pieces:
    """Placements cut to rows; arrays of shape ``(pieces,)``. ``begin .. end`` are offsets in the placement."""

    index: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    target: np.ndarray
    """Where the piece begins in the flattened batch."""
    starts_row: np.ndarray


class MixedViewDataset(Dataset):
    """Row ``i`` of a plan over a prepared split.

    ``dataset[i]`` is one row, ``dataset.batch([...])`` many at once. With a PyTorch ``DataLoader``, whose samplers
    ask for lists of rows (``__getitems__``), pass :func:`collate` as ``collate_fn``.
    """

    def __init__(self, split: PreparedSplit, plan: StreamPlan):
        self.split = split
        self.plan = plan

    @property
    def where(self) -> str:
        """The folder behind the rows, for messages."""
        return str(self.split.folder)

    def describe(self) -> str:
        """What the plan will show."""
        return report(self.plan).table()

    def __len__(self) -> int:
        return self.plan.num_rows

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """One row: ``input_ids``, ``position_ids``, ``labels``, each of shape ``(row_length,)``."""
        batch = self.batch([row])
        return {name: getattr(batch, name)[0] for name in PACKED_COLUMNS}

    def __getitems__(self, rows: Sequence[int]) -> RowBatch:
        """Many rows at once (what PyTorch's loader asks for)."""
        return self.batch(rows)

    def batch(self, rows: Sequence[int]) -> RowBatch:
        """Rows ``rows``, in that order.

        Raises:
            IndexError: if a row is not in the plan.
        """
        shape = (len(rows), self.plan.config.row_length)
        pieces = self._pieces(rows)
        spans = self.plan.segments(pieces.index)
        offsets = Offsets.of(spans, self.plan.config.reserve)
        canvas = _Canvas(*shape, self.plan.config)
        text_bytes = self._copy_text(canvas, pieces, spans, offsets)
        canvas.write_sentinels(pieces, spans, offsets)
        canvas.open_again(pieces, spans, offsets)
        return RowBatch(
            rows=tuple(int(row) for row in rows),
            input_ids=canvas.ids.reshape(shape),
            position_ids=canvas.positions().reshape(shape),
            labels=canvas.labels().reshape(shape),
            text_bytes=text_bytes,
            bags=None if canvas.bags is None else canvas.bags.reshape(*shape, -1),
        )

    def _pieces(self, rows: Sequence[int]) -> _Pieces:
        config, placements = self.plan.config, self.plan.placements
        row = np.asarray(rows, np.int64)
        if len(row) and (row.min() < 0 or row.max() >= self.plan.num_rows):
            raise IndexError(f"row {row[(row < 0) | (row >= self.plan.num_rows)][0]} is not in 0 .. {len(self) - 1}")
        begin = row * config.row_capacity
        end = np.minimum(begin + config.row_capacity, placements.start[-1])
        first = np.searchsorted(placements.start, begin, "right") - 1
        count = np.searchsorted(placements.start, end, "left") - first
        slot = np.repeat(np.arange(len(row)), count)
        order = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        index = first[slot] + order
        base = placements.start[index]
        piece_begin = np.maximum(begin[slot] - base, 0)
        piece_end = np.minimum(end[slot], placements.start[index + 1]) - base
        target = slot * config.row_length + config.reserve + base + piece_begin - begin[slot]
        return _Pieces(index, piece_begin, piece_end, target, order == 0)

    def _copy_text(self, canvas: "_Canvas", pieces: _Pieces, spans: Segments, offsets: Offsets) -> dict[View, float]:
        """Copy each piece's text onto ``canvas``; returns the bytes of text that each view's symbols stand for."""
        document = self.plan.placements.document[pieces.index]
        text_bytes = dict.fromkeys(_VIEWS, 0.0)
        for number in range(len(spans.view)):
            low = np.maximum(pieces.begin, offsets.text[number])
            size = np.minimum(pieces.end, offsets.close[number]) - low
            target = pieces.target + low - pieces.begin
            source = spans.begin[number] + low - offsets.text[number]
            for code, view in enumerate(_VIEWS):
                chosen = np.flatnonzero((spans.view[number] == code) & (size > 0))
                if len(chosen) == 0:
                    continue
                columns = (document[chosen], source[chosen], size[chosen], target[chosen])
                if view is View.COMPRESSED and canvas.bags is not None:
                    self._copy_bags(canvas.ids, canvas.bags, *(column.tolist() for column in columns))
                else:
                    self._copy_spans(canvas.ids, view, *(column.tolist() for column in columns))
                share = size[chosen] * spans.text_bytes[number][chosen].astype(np.float64)
                text_bytes[view] += float((share / spans.length[number][chosen]).sum())
        return text_bytes

    def _copy_spans(self, ids: np.ndarray, view: View, documents: list, sources: list, sizes: list, targets: list):
        read, offset = (self.split.raw, BYTE_OFFSET) if view is View.RAW else (self.split.compressed, COMPRESSED_OFFSET)
        for document, source, size, target in zip(documents, sources, sizes, targets, strict=True):
            np.add(read(document, source, source + size), offset, out=ids[target : target + size], dtype=np.int64)

    def _copy_bags(self, ids: np.ndarray, bags: np.ndarray, documents: list, sources: list, sizes: list, targets: list):
        held = bags.shape[1]
        for document, source, size, target in zip(documents, sources, sizes, targets, strict=True):
            last = min((source + size) * held, int(self.split.n_bytes[document]))
            text = self.split.raw(document, source * held, last)
            ids[target : target + size] = BAG
            np.add(text, BYTE_OFFSET, out=bags[target : target + size].reshape(-1)[: len(text)], dtype=np.int64)


class _Canvas:
    """The flattened batch while it is being written."""

    def __init__(self, rows: int, row_length: int, config: PlanConfig):
        self.masking = config.document_masking
        self.row_length = row_length
        self.open, self.close = (_OPEN, _CLOSE) if config.view_sentinels else (_ONE_OPEN, _ONE_CLOSE)
        # What opens the document itself in each view: its last symbol, behind any <bos>.
        opening = config.document_opening
        self.first_open = self.open.copy()
        for place, view in enumerate(_VIEWS):
            shown = view if config.view_sentinels else View.RAW
            self.first_open[place] = opening.symbols(shown)[-1]
        self.ids = np.full(rows * row_length, PAD, np.int64)
        self.bags = np.full((len(self.ids), config.superposed), PAD, np.int64) if config.superposed else None
        self.starts = np.zeros(rows * row_length, bool)
        self.starts[::row_length] = True
        self.no_target: list[np.ndarray] = []

    def write_sentinels(self, pieces: _Pieces, spans: Segments, offsets: Offsets) -> None:
        """Write the opening and closing sentinels, ``<bos>`` and ``<eos>`` that fall inside the pieces."""
        zeros = np.zeros_like(pieces.begin)
        every = zeros == 0
        if offsets.prefix:
            self._put(pieces, every, zeros, zeros + BOS)
        for number, (wanted, view) in enumerate(zip(offsets.there, spans.view, strict=True)):
            opens = self.open if number else self.first_open
            self._put(pieces, wanted, offsets.open[number], opens[view])
            self._put(pieces, wanted, offsets.close[number], self.close[view])
        self._put(pieces, every, offsets.eos, zeros + EOS)

    def _put(self, pieces: _Pieces, wanted: np.ndarray, offset: np.ndarray, symbol: np.ndarray) -> None:
        inside = wanted & (offset >= pieces.begin) & (offset < pieces.end)
        self.ids[(pieces.target + offset - pieces.begin)[inside]] = symbol[inside]

    def open_again(self, pieces: _Pieces, spans: Segments, offsets: Offsets) -> None:
        """Fill the reserved slots of rows that begin inside a document, and mark where each document starts."""
        begin, last_close = pieces.begin, offsets.last_close
        inside = offsets.there & (begin >= offsets.text) & (begin <= offsets.close)
        cut = pieces.starts_row & inside.any(axis=0)
        view = np.where(inside, spans.view, 0).sum(axis=0)
        start = pieces.target - cut
        self.ids[start[cut]] = self.first_open[view[cut]]
        closes = cut & (offsets.there & (begin == offsets.close)).any(axis=0)
        self.no_target.append(pieces.target[closes])
        if offsets.prefix:
            # A row that begins on an opening sentinel lacks the <bos> alone.
            lacks = cut | (pieces.starts_row & (begin > 0) & (begin <= last_close))
            start = start - lacks
            self.ids[start[lacks]] = BOS
        self.starts[start] = True

    def positions(self) -> np.ndarray:
        """Distance of each slot from the last start before it; every row starts afresh."""
        if not self.masking:
            return np.arange(len(self.starts)) % self.row_length
        where = np.flatnonzero(self.starts)
        runs = np.diff(where, append=len(self.starts))
        return np.arange(len(self.starts)) - np.repeat(where, runs)

    def labels(self) -> np.ndarray:
        """The symbols, except where they are no targets."""
        labels = self.ids.copy()
        labels[labels == PAD] = IGNORE_INDEX
        labels[self.starts] = IGNORE_INDEX
        for places in self.no_target:
            labels[places] = IGNORE_INDEX
        return labels


def collate(batch: RowBatch | Sequence[dict[str, np.ndarray]]) -> PackedBatch:
    """Tensors of a batch of rows; takes what the loader hands over, one :class:`RowBatch` or a list of single rows."""
    if not isinstance(batch, RowBatch):
        ids, positions, labels = (np.stack([row[name] for row in batch]) for name in PACKED_COLUMNS)
        batch = RowBatch((), ids, positions, labels, {})
    return PackedBatch(
        rows=batch.rows,
        input_ids=torch.from_numpy(batch.input_ids),
        position_ids=torch.from_numpy(batch.position_ids),
        labels=torch.from_numpy(batch.labels),
        text_bytes=batch.text_bytes,
        bags=None if batch.bags is None else torch.from_numpy(batch.bags),
    )


def collate_inputs(batch: RowBatch | Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | bool]:
    """The same as keyword arguments of ``forward``: the ``data_collator`` for Transformers' ``Trainer``."""
    return collate(batch).model_inputs()
