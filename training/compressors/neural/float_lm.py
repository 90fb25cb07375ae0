"""M1 as trained: the same GRU in floating point, and its rounding to :class:`~.byte_lm.ByteLM`."""

import math

import torch
from torch import Tensor, nn

from . import byte_lm
from .byte_lm import ByteLM

EMBEDDING = 64


class FloatByteLM(nn.Module):
    """A GRU over bytes. Every sequence starts from the zero state, as every window does where M1 is used.

    Args:
        width: units of the state.
        byte_counts: shape ``(256,)``; how often each byte occurs in the text to be learned. The zero state predicts
            these frequencies from the start (it only has the head's bias to do it with, which learns slowly).
    """

    def __init__(self, width: int, byte_counts: Tensor):
        super().__init__()
        self.embedding = nn.Embedding(byte_lm.VOCABULARY, EMBEDDING)
        self.gru = nn.GRU(EMBEDDING, width)
        self.head = nn.Linear(width, byte_lm.VOCABULARY)
        counts = byte_counts.double() + 1
        with torch.no_grad():
            self.head.bias.copy_((counts / counts.sum()).log())

    @property
    def width(self) -> int:
        """Units of the state."""
        return self.head.in_features

    def forward(self, text: Tensor) -> Tensor:
        """Logits (nats) of each byte from those before it.

        Args:
            text: ``(L, B)`` int64.

        Returns:
            ``(L, B, 256)``; element ``[t]`` has seen ``text[:t]``.
        """
        states, _ = self.gru(self.embedding(text[:-1]))
        return self.head(torch.cat([states.new_zeros(1, *states.shape[1:]), states]))


@torch.no_grad()
def quantise(model: FloatByteLM) -> ByteLM:
    """Round a trained model to integers; weights to 8 bits with a power of two for each row."""
    wide = model.width
    weight = {name: parameter.detach().double().cpu() for name, parameter in model.gru.named_parameters()}
    inputs = model.embedding.weight.double().cpu() @ weight["weight_ih_l0"].T + weight["bias_ih_l0"]
    inputs[:, : 2 * wide] += weight["bias_hh_l0"][: 2 * wide]
    recurrent, shift = _quantise_rows(weight["weight_hh_l0"])
    target = torch.full_like(shift, byte_lm.STATE_BITS)
    target[2 * wide :] = byte_lm.GATE_BITS
    head, head_shift = _quantise_rows(model.head.weight.double().cpu() / math.log(2))
    steps = torch.arange(-byte_lm.INDEX_MAX, byte_lm.INDEX_MAX + 1).double() * 2.0**-byte_lm.STATE_BITS
    tensors = {
        "inputs": inputs * 2**byte_lm.STATE_BITS,
        "recurrent": recurrent,
        "recurrent_scale": 2.0 ** (target - shift - byte_lm.STATE_BITS),
        "candidate_bias": weight["bias_hh_l0"][2 * wide :] * 2**byte_lm.GATE_BITS,
        "head": head,
        "head_scale": 2.0 ** (byte_lm.LOGIT_BITS - head_shift - byte_lm.STATE_BITS),
        "head_bias": model.head.bias.double().cpu() / math.log(2) * 2**byte_lm.LOGIT_BITS,
        "sigmoid": torch.sigmoid(steps) * 2**byte_lm.GATE_BITS,
        "tanh": (torch.tanh(steps) * 2**byte_lm.STATE_BITS).clamp(-byte_lm.STATE_MAX, byte_lm.STATE_MAX),
        "exp2": 2.0 ** (byte_lm.WEIGHT_BITS - _fractions(byte_lm.EXPONENTS)),
        "sum_steps": (2.0 ** (byte_lm.WEIGHT_BITS + _fractions(byte_lm.SUM_STEPS)[1:])).ceil(),
    }
    for name, tensor in tensors.items():
        if not name.endswith("_scale"):
            tensor.round_()
    int8 = {name: tensors.pop(name).to(torch.int8) for name in ("recurrent", "head")}
    return ByteLM(**int8, **{name: tensor.float() for name, tensor in tensors.items()})


def _fractions(last: int) -> Tensor:
    """0, 1/64, 2/64, ... up to ``last`` 64ths (units of a logit)."""
    return torch.arange(last + 1).double() * 2.0**-byte_lm.LOGIT_BITS


def _quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers ``q`` within +-127 and shifts ``s`` such that ``q * 2^-s`` is near ``weight``, row by row.

    The shift is the finest that neither clips the row's largest weight nor lets its sum pass the exact range.
    """
    largest = weight.abs().amax(dim=1).clamp(min=2.0**-8)
    total = weight.abs().sum(dim=1).clamp(min=2.0**-8)
    room = (byte_lm.EXACT / byte_lm.STATE_MAX - weight.shape[1]) / total
    shift = torch.minimum(byte_lm.STATE_MAX / largest, room).log2().floor().clamp(-8, 14)
    limit = byte_lm.STATE_MAX
    return (weight * 2.0 ** shift[:, None]).round().clamp(-limit, limit), shift
