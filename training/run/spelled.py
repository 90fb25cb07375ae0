r"""Spelled rows: the row of a compressed symbol is made of the rows of its bytes.

With :math:`e(b)` the row of byte :math:`b`, and :math:`b_0 \dots b_{n-1}` the bytes that symbol :math:`c` spells,

.. math:: e(c) = r_c + \frac{1}{\sqrt n} \sum_i g_{\min(i, P-1)} \odot e(b_i) ,

in the embedding and, with places :math:`g` and residuals :math:`r` of their own, in the head (one set where the two
are tied). That a symbol's row holds its spelling is the idea of arXiv 2601.18030; the form by learnt places is ours.
Residuals start at zero. :math:`g_0` starts at one and the other places at random signs, so that the order of bytes
tells before anything is learnt.

The model does not know: it holds the rows :math:`e(c)` themselves, forward and loss are those of any model, and every
form of export is. After the backward pass the gradient of these rows is handed on to bytes, places and residuals, which
are what the optimizer moves, and the rows are made anew. So the lever costs a step the same whatever its batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_BYTES

from ..byteify.embedding_rows import token_spellings
from ..compressors import Compressor, load_compressor
from ..compressors.bpe import BpeCompressor
from ..compressors.spelling import spelling_of
from .data import TrainingData
from .lever_config import LeversConfig

SPELLED_FILE = "spelled_rows.safetensors"
"""In a checkpoint: places and residuals."""
_EMBEDDING, _HEAD = "spelled_embedding", "spelled_head"


def symbol_bytes(compressor: Compressor) -> list[bytes | None]:
    """Bytes of each code, ``None`` or empty for one that spells nothing by itself.

    Raises:
        ProxyByteError: if a symbol's bytes depend on others, as in gzip and the neural coder.
    """
    if isinstance(compressor, BpeCompressor):
        return token_spellings(compressor)
    return list(spelling_of(compressor).spelled)


@dataclass(frozen=True)
class SpellingTable:
    """Where the bytes of each symbol stand, as ``embedding_bag`` wants it.

    Attributes:
        index: ``256 * place + byte`` of all bytes, symbol by symbol, int64, shape ``(bytes,)``.
        starts: where each symbol's bytes begin, int64, shape ``(codes,)``.
        weights: one over the root of the symbol's length for each byte, shape ``(bytes,)``.
        places: places that are told apart.
    """

    index: torch.Tensor
    starts: torch.Tensor
    weights: torch.Tensor
    places: int

    @classmethod
    def build(cls, spellings: Sequence[bytes | None], places: int) -> "SpellingTable":
        """The table of a compressor's spellings; ``places`` is lowered to the longest of them."""
        texts = [text or b"" for text in spellings]
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        told = max(1, min(places, int(lengths.max(initial=0))))
        starts = np.cumsum(lengths) - lengths
        place = np.minimum(np.arange(lengths.sum()) - np.repeat(starts, lengths), told - 1)
        index = place * NUM_BYTES + np.frombuffer(b"".join(texts), dtype=np.uint8)
        weights = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
        return cls(torch.from_numpy(index), torch.from_numpy(starts), torch.from_numpy(weights), told)

    def to(self, weight: torch.Tensor) -> "SpellingTable":
        """The table where ``weight`` lies, in its numbers."""
        device = weight.device
        return SpellingTable(self.index.to(device), self.starts.to(device), self.weights.to(weight), self.places)

    def rows(self, bytes_: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The spelled rows, shape ``(codes, D)``.

        Args:
            bytes_: rows of the 256 bytes, shape ``(256, D)``.
            places: shape ``(places, D)``.
        """
        table = (places[:, None] * bytes_).flatten(0, 1)
        return F.embedding_bag(self.index, table, self.starts, mode="sum", per_sample_weights=self.weights)

    def flops(self, width: int) -> float:
        """FLOPs of making the rows and of handing their gradient on, once a step.

        Forward multiplies the table, then weights and adds each byte's entry; backward does both for each factor.
        """
        return 6.0 * width * len(self.index) + 3.0 * width * self.places * NUM_BYTES


class _Matrix(nn.Module):
    """One matrix of rows and what it is made of.

    Attributes:
        raw: its first 320 rows, in the same memory.
        residual: shape ``(codes, D)``.
        places: shape ``(P, D)``.
    """

    def __init__(self, weight: nn.Parameter, table: SpellingTable, seed: int, stored: Mapping[str, torch.Tensor]):
        super().__init__()
        self.weight = [weight]  # in a list: it is the model's, and the optimizer is not to see it
        self.table = table.to(weight)
        self.raw = nn.Parameter(weight.data[:COMPRESSED_OFFSET])
        places = stored.get("places", _first_places(self.table.places, weight.shape[1], seed))
        self.places = nn.Parameter(places.to(weight))
        self.residual = nn.Parameter(stored.get("residual", torch.zeros_like(weight[COMPRESSED_OFFSET:])).to(weight))

    @property
    def byte_rows(self) -> torch.Tensor:
        return self.raw[BYTE_OFFSET:]

    @torch.no_grad()
    def keep_rows(self) -> None:
        """Choose residuals such that the rows are what they are."""
        self.residual.copy_(self.weight[0][COMPRESSED_OFFSET:] - self.table.rows(self.byte_rows, self.places))

    @torch.no_grad()
    def write(self) -> None:
        """Make the rows of compressed symbols anew."""
        codes = self.weight[0].data[COMPRESSED_OFFSET:]
        torch.add(self.table.rows(self.byte_rows, self.places), self.residual, out=codes)

    def hand_on(self) -> None:
        """Move the gradient of the rows to what they are made of."""
        gradient, self.weight[0].grad = self.weight[0].grad, None
        if gradient is None:
            return
        self.raw.grad = gradient[:COMPRESSED_OFFSET].clone()
        self.residual.grad = gradient[COMPRESSED_OFFSET:].clone()
        with torch.enable_grad():
            rows = self.table.rows(self.byte_rows, self.places)
            # It adds to the gradients that are there.
            rows.backward(self.residual.grad)


def _first_places(count: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (count, width), generator=generator).float() * 2 - 1
    signs[0] = 1
    return signs


class SpelledRows:
    """The spelled rows of a model in training.

    Attributes:
        matrices: by name.
        replaced: names of the model's parameters that the optimizer does not see.
    """

    def __init__(self, model: ProxyByteForCausalLM, table: SpellingTable, seed: int, stored: Path | None, keep: bool):
        """Take the rows of ``model`` over, which is where it is to be trained.

        Args:
            model: its compressed rows are overwritten.
            table: of its compressor.
            seed: of the places.
            stored: a checkpoint that :meth:`tensors` are in, to go on from.
            keep: of a model that was trained before: its rows stay as they are, and residuals make up for it.
        """
        self._model = model
        names = {id(weight): name for name, weight in model.named_parameters()}
        embedding: Any = model.get_input_embeddings()
        found: dict[str, nn.Parameter] = {_EMBEDDING: embedding.weight}
        if model.lm_head.weight is not found[_EMBEDDING]:
            found[_HEAD] = model.lm_head.weight
        self.replaced = frozenset(names[id(weight)] for weight in found.values())
        tensors = load_file(stored / SPELLED_FILE) if stored else {}
        self.matrices = {
            name: _Matrix(weight, table, seed, {k.rpartition(".")[2]: v for k, v in tensors.items() if name in k})
            for name, weight in found.items()
        }
        for matrix in self.matrices.values():
            if keep and not stored:
                matrix.keep_rows()
            matrix.write()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimizer moves, in the place of the model's own parameters."""
        for name, parameter in self._model.named_parameters():
            if name not in self.replaced:
                yield name, parameter
        for name, matrix in self.matrices.items():
            for part, parameter in matrix.named_parameters():
                yield f"{name}.{part}", parameter

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds beside the model's rows."""
        parts = ("places", "residual")
        return {f"{n}.{part}": getattr(matrix, part) for n, matrix in self.matrices.items() for part in parts}

    def hand_on(self) -> None:
        """To be called after the backward pass of a step."""
        for matrix in self.matrices.values():
            matrix.hand_on()

    def write(self) -> None:
        """To be called after the optimizer's step."""
        for matrix in self.matrices.values():
            matrix.write()


def spelling_table(levers: LeversConfig, data: TrainingData) -> SpellingTable | None:
    """The table of the data's compressor where spelled rows are asked for.

    Raises:
        ProxyByteError: if the data have no compressor whose symbols spell bytes.
    """
    if not levers.spelled_rows:
        return None
    if data.compressor is None or not data.num_codes:
        raise ProxyByteError(
            f"levers.spelled_rows needs compressed symbols, and this run over {data.path} shows none: raise "
            "plan.schedule.rate, or leave it out"
        )
    try:
        spellings = symbol_bytes(load_compressor(data.compressor))
    except ProxyByteError as error:
        raise ProxyByteError(f"levers.spelled_rows does not go with {data.path}: {error}") from error
    return SpellingTable.build(spellings[: data.num_codes], levers.spelled_places)


def spelled_flops(levers: LeversConfig, data: TrainingData, width: int, tied: bool) -> float:
    """FLOPs that spelled rows add to a step."""
    table = spelling_table(levers, data)
    return 0.0 if table is None else table.flops(width) * (1 if tied else 2)
