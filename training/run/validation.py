"""What a run scores of its validation documents while it goes on, all processes together."""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from proxybyte.errors import ProxyByteError
from proxybyte.eval import Scoring, bits_per_byte, compressed_bits_per_byte
from proxybyte.symbols import View

from ..compressors import CannotEncode, Compressor
from .distributed import Stage
from .precision import autocast


@dataclass(frozen=True)
class TwoViews:
    """Documents as bytes and, where they are to be scored so, as codes.

    Attributes:
        texts: the bytes of each.
        codes: the codes of each; empty where the compressed view is not scored.
    """

    texts: list[bytes]
    codes: list[np.ndarray]

    def share(self, rank: int, size: int) -> "TwoViews":
        """Every ``size``-th document, from number ``rank``."""
        return TwoViews(self.texts[rank::size], self.codes[rank::size])


def code_documents(texts: list[bytes], compressor: Compressor) -> TwoViews:
    """The documents that ``compressor`` can code; both views of a result are over the same ones.

    Raises:
        ProxyByteError: if it can code none.
    """
    coded = zip(texts, compressor.encode_batch(texts), strict=True)
    pairs = [(text, code) for text, code in coded if not isinstance(code, CannotEncode)]
    if not pairs:
        raise ProxyByteError(f"{compressor.name} can code no validation document: leave 'compressed' out of the views")
    return TwoViews([text for text, _ in pairs], [code for _, code in pairs])


@dataclass(frozen=True)
class Validation:
    """Bits per byte of the validation documents, in each view that is asked for.

    Attributes:
        model: the model without wrappers (or sharded in place).
        documents: all of them.
        views: which to score.
        stage: each process takes its share, but all take all of a sharded model, whose passes are made in step; the
            precision is that of training.
        compiled: whether blocks are compiled; documents of every length would compile them anew.
        scoring: windows no longer than a training row, whose positions are all that the model has seen.
    """

    model: nn.Module
    documents: TwoViews
    views: tuple[View, ...]
    stage: Stage
    compiled: bool
    scoring: Scoring

    def __call__(self) -> dict[str, float]:
        """Bits per byte over all documents by metric name, the same on every process."""
        return {f"validation/{view}_bpb": self._score(view) for view in self.views}

    def _score(self, view: View) -> float:
        world = self.stage.world
        sharded = isinstance(self.model, FSDPModule)
        mine = self.documents if sharded else self.documents.share(world.rank, world.size)
        sizes = [len(text) for text in mine.texts]
        eager = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        bits = 0.0
        if sum(sizes):
            with eager, autocast(self.stage.precision, self.stage.accelerator.device):
                if view is View.RAW:
                    bits = bits_per_byte(self.model, mine.texts, self.scoring).bits
                else:
                    bits = compressed_bits_per_byte(self.model, mine.codes, sizes, self.scoring).bits
        totals = world.gather(np.array([bits, sum(sizes)])).sum(axis=0)
        return float(totals[0] / totals[1])
