"""What a run scores of its validation documents while it goes on, all processes together."""

from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from proxybyte.errors import ProxyByteError
from proxybyte.eval import Scoring, bits_per_byte, compressed_bits_per_byte, translation_bits_per_byte
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


TRANSLATED_BYTES = 192
"""Of each document where views are to meet, or as many as a row holds twice."""
_SENTINELS = 5


def heads_that_fit(texts: list[bytes], compressor: Compressor, row_length: int) -> TwoViews:
    """Heads of the documents, of equal length in bytes, that a row holds in both views.

    Raises:
        ProxyByteError: if the compressor can code none.
    """
    size = TRANSLATED_BYTES
    while True:
        heads = code_documents([text[:size] for text in texts], compressor)
        longest = max(len(text) + len(code) for text, code in zip(heads.texts, heads.codes, strict=True))
        if longest + _SENTINELS <= row_length or size == 1:
            return heads
        size = max(1, size * 7 // 8)


class Given(StrEnum):
    """What stands in the context of a view."""

    NOTHING = "alone"
    OTHER_VIEW = "given"


def transfer_metric(view: View, given: Given) -> str:
    """Name of the bits per byte of a view of the heads, alone or with the other view in the context."""
    return f"validation/transfer/{view}_{given}_bpb"


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
        heads: of documents whose two views are to be scored alone and with the other in the context; ``None`` for none.
    """

    model: nn.Module
    documents: TwoViews
    views: tuple[View, ...]
    stage: Stage
    compiled: bool
    scoring: Scoring
    heads: TwoViews | None = None

    def __call__(self) -> dict[str, float]:
        """Bits per byte over all documents by metric name, the same on every process."""
        found = {f"validation/{view}_bpb": self._score(view, self.documents) for view in self.views}
        if self.heads is not None:
            for view, given in product(View, Given):
                found[transfer_metric(view, given)] = self._score(view, self.heads, given)
        return found

    def _score(self, view: View, documents: TwoViews, given: Given = Given.NOTHING) -> float:
        world = self.stage.world
        sharded = isinstance(self.model, FSDPModule)
        mine = documents if sharded else documents.share(world.rank, world.size)
        sizes = [len(text) for text in mine.texts]
        eager = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        bits = 0.0
        if sum(sizes):
            with eager, autocast(self.stage.precision, self.stage.accelerator.device):
                if given is Given.OTHER_VIEW:
                    found = translation_bits_per_byte(self.model, mine.texts, mine.codes, view, self.scoring)
                elif view is View.RAW:
                    found = bits_per_byte(self.model, mine.texts, self.scoring)
                else:
                    found = compressed_bits_per_byte(self.model, mine.codes, sizes, self.scoring)
                bits = found.bits
        totals = world.gather(np.array([bits, sum(sizes)])).sum(axis=0)
        return float(totals[0] / totals[1])
