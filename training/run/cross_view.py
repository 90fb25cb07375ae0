r"""Cross-view targets: every position is also asked for what the other view would show next; all off by default.

*Symbols.* At the last byte of a compressed symbol of raw text, behind which another one begins, the head's own rows of
the compressed symbols are asked for that one.

*First bytes.* Wherever the next symbol is a compressed one, the head's rows of the 320 raw symbols are asked for the
first ``count`` bytes that it spells, each for itself and without their order; their mean counts.

*Borders.* At each byte of raw text, two rows that no model has tell whether a compressed symbol begins behind it. They
start at zero, move with the model's weights and stay in the checkpoints of the run.

Each is a sum of cross-entropies in nats over its places, times its weight at this step, divided by the targets of the
step like the loss that it is added to. Raw text is coded as a row shows it, so a document that a row cuts is coded from
the cut on; of a stretch that the row's end cuts, the last symbol is left out. Plain bytes take the first and the third:
token targets at borders, which are what the lever is to be held against.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.losses import head_loss
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_RAW_SYMBOLS

from ..compressors import Compressor, load_compressor
from .data import TrainingData, read_rows
from .lever_config import CrossViewConfig
from .raw_spans import raw_spans
from .spelled import symbol_bytes

CROSS_VIEW_FILE = "cross_view.safetensors"
"""In a checkpoint: the border rows."""
_BORDER = "border_rows"
_NONE = -1
_SAMPLED_ROWS = 64


@dataclass(frozen=True)
class CrossTargets:
    """What the other view would show in a batch; places are rows and columns, shape ``(2, N)``.

    Attributes:
        symbol_places: last bytes of symbols in raw text, behind which another one begins.
        symbols: its code, shape of the places.
        byte_places: where the next symbol is a compressed one; once for each of its first bytes.
        bytes_: that byte, as a symbol.
        byte_shares: one over the first bytes asked for at that place.
        border_places: bytes of raw text.
        borders: 1 where a symbol begins behind it, else 0.
    """

    symbol_places: np.ndarray
    symbols: np.ndarray
    byte_places: np.ndarray
    bytes_: np.ndarray
    byte_shares: np.ndarray
    border_places: np.ndarray
    borders: np.ndarray


@dataclass(frozen=True)
class OtherView:
    """The compressor of a run, as raw text is asked for it.

    Attributes:
        compressor: whose symbols spell bytes one by one.
        first: symbols of each code's first bytes, -1 where it has fewer, shape ``(codes, count)``.
    """

    compressor: Compressor
    first: np.ndarray

    @classmethod
    def of(cls, count: int, data: TrainingData) -> "OtherView":
        """Of the data.

        Raises:
            ProxyByteError: if they have no compressor whose symbols spell bytes.
        """
        if data.compressor is None or data.chat is not None:
            raise ProxyByteError("levers.cross_view is for prepared data: conversations have no compressed view")
        compressor = load_compressor(data.compressor)
        try:
            spellings = symbol_bytes(compressor)
        except ProxyByteError as error:
            raise ProxyByteError(f"levers.cross_view does not go with {data.compressor.parent}: {error}") from error
        return cls(compressor, first_bytes(spellings, compressor.num_symbols, count))

    def targets(self, input_ids: np.ndarray) -> CrossTargets:
        """Of packed rows, shape ``(B, T)``."""
        symbol_places, symbols, border_places, borders = [_no_places()], [_nothing()], [_no_places()], [_nothing()]
        for span in raw_spans(input_ids, self.compressor):
            whole = len(span.codes) - (span.begin + int(span.ends[-1]) >= input_ids.shape[1])
            last = span.begin + span.ends[:whole] - 1
            symbol_places.append(_in_row(span.row, last[:-1]))
            symbols.append(span.codes[1:whole].astype(np.int64))
            inside = np.arange(span.begin, last[-1])
            border_places.append(_in_row(span.row, inside))
            borders.append(np.isin(inside, last[:-1]).astype(np.int64))
        places = np.stack(np.nonzero(input_ids[:, 1:] >= COMPRESSED_OFFSET))
        following = self.first[input_ids[places[0], places[1] + 1] - COMPRESSED_OFFSET]
        asked = following != _NONE
        return CrossTargets(
            symbol_places=np.concatenate(symbol_places, axis=1),
            symbols=np.concatenate(symbols),
            byte_places=np.repeat(places, asked.sum(axis=1), axis=1),
            bytes_=following[asked],
            byte_shares=np.repeat(1 / np.maximum(asked.sum(axis=1), 1), asked.sum(axis=1)),
            border_places=np.concatenate(border_places, axis=1),
            borders=np.concatenate(borders),
        )


def first_bytes(spellings: Sequence[bytes | None], codes: int, count: int) -> np.ndarray:
    """Symbols of the first ``count`` bytes of each of ``codes`` codes, -1 where there are fewer."""
    table = np.full((codes, count), _NONE, np.int64)
    for code, text in enumerate(spellings):
        shown = (text or b"")[:count]
        table[code, : len(shown)] = np.frombuffer(shown, np.uint8).astype(np.int64) + BYTE_OFFSET
    return table


def _in_row(row: int, columns: np.ndarray) -> np.ndarray:
    return np.stack([np.full(len(columns), row, np.int64), columns.astype(np.int64)])


def _no_places() -> np.ndarray:
    return np.empty((2, 0), np.int64)


def _nothing() -> np.ndarray:
    return np.empty(0, np.int64)


class CrossView:
    """The cross-view targets of a run.

    Attributes:
        border_rows: shape ``(2, D)``; ``None`` where no weight is given to borders.
    """

    def __init__(
        self,
        config: CrossViewConfig,
        data: TrainingData,
        model: ProxyByteForCausalLM,
        stored: Path | None,
    ):
        """For ``model``, where it is to be trained.

        Args:
            config: the weights.
            data: whose compressor says what the other view is.
            model: the bare model.
            stored: a checkpoint that :meth:`tensors` are in, to go on from.

        Raises:
            ProxyByteError: if the data have no compressor whose symbols spell bytes, or the model no rows for it.
        """
        self._config = config
        self._steps = data.steps
        self._other = OtherView.of(config.count, data)
        if config.symbols.value and data.num_codes < self._other.compressor.num_symbols:
            raise ProxyByteError("levers.cross_view.symbols needs rows for the compressor's symbols in the model")
        self.border_rows: nn.Parameter | None = None
        if config.borders.value:
            like = model.lm_head.weight
            rows = load_file(stored / CROSS_VIEW_FILE)[_BORDER] if stored else torch.zeros(2, like.shape[1])
            self.border_rows = nn.Parameter(rows.to(like))

    @classmethod
    def asked(
        cls, config: CrossViewConfig, data: TrainingData, model: ProxyByteForCausalLM, stored: Path | None
    ) -> "CrossView | None":
        """The targets of a run; ``None`` where it asks for none."""
        return cls(config, data, model, stored) if config.speaks else None

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimizer moves beside the model."""
        if self.border_rows is not None:
            yield _BORDER, self.border_rows

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds beside the model."""
        return dict(self.named_parameters())

    def average(self, accelerator: Accelerator) -> None:
        """To be called after the backward pass of a step: the mean over processes, as that of the model's weights."""
        rows = self.border_rows
        if rows is not None and accelerator.num_processes > 1:
            rows.grad = accelerator.reduce(torch.zeros_like(rows) if rows.grad is None else rows.grad, "mean")

    def speaks(self, step: int) -> bool:
        """Whether there is a signal at ``step``."""
        return any(self._weights(step))

    def _weights(self, step: int) -> tuple[float, float, float]:
        config, steps = self._config, self._steps
        return config.symbols.at(step, steps), config.first_bytes.at(step, steps), config.borders.at(step, steps)

    def loss(self, model: nn.Module, input_ids: torch.Tensor, hidden: torch.Tensor, step: int) -> torch.Tensor:
        """The weighted signals summed over their places, in nats, a scalar.

        Args:
            model: of the run, wrapped or not.
            input_ids: packed rows, shape ``(B, T)``.
            hidden: what the head reads there, shape ``(B, T, D)``.
            step: from 0.
        """
        bare: Any = extract_model_from_parallel(model, keep_torch_compile=False)
        head = bare.lm_head.weight
        cap = getattr(bare.config.backbone_config, "final_logit_softcapping", None)
        found = self._other.targets(input_ids.cpu().numpy())
        of_symbols, of_bytes, of_borders = self._weights(step)
        codes = slice(COMPRESSED_OFFSET, COMPRESSED_OFFSET + self._other.compressor.num_symbols)
        asked = [
            (of_symbols, head[codes], found.symbol_places, found.symbols, None, cap),
            (of_bytes, head[:NUM_RAW_SYMBOLS], found.byte_places, found.bytes_, found.byte_shares, cap),
            (of_borders, self.border_rows, found.border_places, found.borders, None, None),
        ]
        total = hidden.new_zeros((), dtype=torch.float32)
        for weight, rows, places, targets, shares, bound in asked:
            if weight and len(targets):
                states = hidden[tuple(torch.from_numpy(places).to(hidden.device))]
                wanted = torch.from_numpy(targets).to(hidden.device)
                counted = None if shares is None else torch.from_numpy(shares).to(states)
                size = bare.config.loss_chunk_size
                total = (
                    total
                    + weight * head_loss(partial(F.linear, weight=rows), states, wanted, size, counted, bound).total
                )
        return total


def cross_view_flops(config: CrossViewConfig, data: TrainingData, width: int, rows_per_step: int) -> float:
    """FLOPs that the targets add to a row, the mean over a sample of the run's rows: three products a place and row."""
    if not config.speaks:
        return 0.0
    other = OtherView.of(config.count, data)
    sample = np.unique(np.linspace(0, len(data.dataset) - 1, _SAMPLED_ROWS).astype(int)).tolist()
    total = 0.0
    for row in sample:
        step = min(row // rows_per_step, data.steps - 1)
        found = other.targets(read_rows(data.dataset, [row]).input_ids)
        asked = (
            (config.symbols, other.compressor.num_symbols * len(found.symbols)),
            (config.first_bytes, NUM_RAW_SYMBOLS * len(found.bytes_)),
            (config.borders, 2 * len(found.borders)),
        )
        total += sum(products for ramp, products in asked if ramp.at(step, data.steps))
    return 6.0 * width * total / len(sample)
