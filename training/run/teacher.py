r"""A second signal, off by default: what the base model says about the next byte where a token of its text ends.

At the last byte of token :math:`t_j` of a raw document the base, which reads tokens :math:`t_1 \dots t_j`, knows the
next token; the next byte is that token's first one, so

.. math:: p(b) = \sum_{v:\, v_0 = b} p(v \mid t_1 \dots t_j) \Big/ \sum_{v:\, |v| > 0} p(v \mid t_1 \dots t_j) .

The loss gains ``weight`` times the cross-entropy of the model's own next byte with :math:`p`, summed over token ends
and divided by the targets of the step. A byteified model is its own base through the compressed view, so the teacher
is a model folder that ``proxybyte byteify`` wrote. Text is coded as the row shows it: a document that a row cuts is
read from the cut on, as the model itself reads it. That the tokens so far were a greedy coding tells a little more of
the next byte than :math:`p` says; it is left out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from proxybyte import ProxyByteForCausalLM
from proxybyte.byte_codec import decode_bytes
from proxybyte.checksums import WEIGHTS, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_BYTES, NUM_SPECIALS, Special

from ..byteify.rows import token_spellings
from ..compressors import Compressor, encode_one, load_compressor
from ..compressors.bpe import BpeCompressor
from ..compressors.protocol import CannotEncode


@dataclass(frozen=True)
class Span:
    """A stretch of raw text in a batch, coded.

    Attributes:
        row: which row.
        codes: its tokens, shape ``(K,)``.
        places: column of the last byte of each of the first ``K - 1`` tokens, shape ``(K - 1,)``.
    """

    row: int
    codes: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class Teacher:
    """The base, frozen.

    Attributes:
        model: a byteified model as it was before training.
        compressor: its tokenizer.
        first_byte: of each code; 256 where it spells nothing. Shape ``(codes,)``.
        weight: of its signal in the loss.
    """

    model: ProxyByteForCausalLM
    compressor: Compressor
    first_byte: torch.Tensor
    weight: float

    @classmethod
    def load(cls, folder: Path, compressor: Path, weight: float, device: torch.device) -> "Teacher":
        """The teacher in a model folder, in bfloat16 on an accelerator and float32 on a CPU.

        Raises:
            ProxyByteError: if there is none, or the data's compressor is no tokenizer.
        """
        coder = load_compressor(compressor)
        if not isinstance(coder, BpeCompressor):
            raise ProxyByteError(f"teacher.weight needs a tokenizer as compressor, but {compressor} is {coder.family}")
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        verify_folder(folder, WEIGHTS)
        try:
            model = ProxyByteForCausalLM.from_pretrained(folder, dtype=dtype)
        except (OSError, ValueError, RuntimeError) as error:
            raise ProxyByteError(f"the teacher in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
        first = [spelled[0] if spelled else NUM_BYTES for spelled in token_spellings(coder)]
        model.requires_grad_(False)
        return cls(model.eval().to(device), coder, torch.tensor(first, device=device), weight)

    def loss(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Weighted cross-entropy summed over the token ends of a batch, in nats, a scalar.

        Args:
            input_ids: packed rows, shape ``(B, T)``.
            logits: of the model that is trained, shape ``(B, T, at least 320)``.
        """
        total = logits.new_zeros((), dtype=torch.float32)
        spans = raw_spans(input_ids.cpu().numpy(), self.compressor)
        for span in spans:
            wanted = self.next_byte(span.codes)[:-1]
            said = logits[span.row, torch.from_numpy(span.places).to(logits.device)]
            said = F.log_softmax(said[:, BYTE_OFFSET : BYTE_OFFSET + NUM_BYTES].float(), dim=-1)
            total = total - (wanted * said).sum()
        return self.weight * total

    @torch.no_grad()
    def next_byte(self, codes: np.ndarray) -> torch.Tensor:
        """Distribution of the byte after each token, float32, shape ``(len(codes), 256)``."""
        symbols = torch.from_numpy(codes.astype(np.int64)) + COMPRESSED_OFFSET
        opened = F.pad(symbols, (1, 0), value=int(Special.COMPRESSED_OPEN))[None].to(self.first_byte.device)
        logits = self.model(input_ids=opened, use_cache=False).logits[0, 1:]
        chosen = logits[:, COMPRESSED_OFFSET : COMPRESSED_OFFSET + len(self.first_byte)]
        chances = chosen.float().softmax(dim=-1)
        bytes_ = chances.new_zeros(len(codes), NUM_BYTES + 1).index_add_(1, self.first_byte, chances)[:, :NUM_BYTES]
        return bytes_ / bytes_.sum(dim=-1, keepdim=True)


def raw_spans(input_ids: np.ndarray, compressor: Compressor) -> list[Span]:
    """Every stretch of raw text with at least two tokens; those that the compressor cannot code are left out.

    Args:
        input_ids: packed rows, shape ``(B, T)``.
        compressor: a tokenizer.
    """
    spans = []
    for row, symbols in enumerate(input_ids):
        raw = (symbols >= NUM_SPECIALS) & (symbols < COMPRESSED_OFFSET)
        borders = np.flatnonzero(np.diff(raw.astype(np.int8), prepend=0, append=0))
        for begin, end in borders.reshape(-1, 2):
            try:
                codes = encode_one(compressor, decode_bytes(symbols[begin:end]))
            except CannotEncode:
                continue
            ends = compressor.borders(codes)
            if ends is not None and len(codes) > 1:
                spans.append(Span(row, codes, begin + ends[:-1] - 1))
    return spans
