"""M1 as used: a byte GRU that is a function from integers to integers, the same on every machine.

Floating-point sums depend on their order, and the order depends on batch size, library and device. Here every operand
of a sum is an integer, and so small that float32 holds each product and each partial sum exactly (``ByteLM`` proves it
from its weights when it is made): in whatever order, nothing is rounded, so nothing can differ. States and weights lie
within +-127, so integer matrix units give the same sums (:mod:`.int8`), and bfloat16 and TF32 would hold them exactly
too. All else is elementwise on exact integers, or a look-up in a stored table.

With state ``h`` and input byte ``x`` (a GRU, Cho et al. 2014, in PyTorch's form; unit of each number in brackets)::

    r, z = sigmoid(W_rz h + U_rz[x])              [2^-8], by table
    n    = tanh(r * (W_n h + b_n) + U_n[x])       [2^-7], by table
    h'   = round((1 - z) * n + z * h)             [2^-7]
    l    = W_o h + b_o                            [2^-6 of a bit]
    freq = 1 + floor((2^16 - 256) * 2^(l - max l) / sum)

and what is left of 2^16 goes to the likeliest byte (the lowest such), so that frequencies sum to 2^16.
"""

import dataclasses
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Self

import torch
from torch import Tensor

from proxybyte.errors import ProxyByteError

VOCABULARY = 256
FREQUENCY_BITS = 16
STATE_BITS, GATE_BITS, LOGIT_BITS = 7, 8, 6
"""Fractional bits of states and table indices, of gates and the candidate's inner sum, and of logits."""
STATE_MAX = 2**STATE_BITS - 1
REACH = 8
"""Sigmoid and tanh are constant beyond +-8 at this precision."""
INDEX_MAX = REACH * 2**STATE_BITS
INNER_MAX = 2**14
"""Clamp of the candidate's inner sum; times a gate (at most 2^8) it stays below 2^24."""
WEIGHT_BITS = 16
EXPONENTS = WEIGHT_BITS * 2**LOGIT_BITS
"""Logits more than 16 bits below the largest count as 16 bits below."""
SUM_STEPS = 8 * 2**LOGIT_BITS
EXACT = 2**24
"""Integers up to here are exact in float32."""
_RECIPROCAL_BITS = 30
_INT8 = ("recurrent", "head")


_LEAST_ROWS = 17
"""PyTorch's int8 product asks for more than 16 rows on CUDA."""


def exact_products(states: Tensor, weights: Tensor, float_weights: Tensor) -> Tensor:
    """``states @ weights.T`` without rounding, as float32.

    Two ways with one result: int8 matrix units (integers by nature), or float32 (exact while sums stay below 2^24,
    which the caller has proved of ``weights``).

    Args:
        states: ``(B, H)`` int8.
        weights: ``(R, H)`` int8.
        float_weights: ``weights`` as float32.

    Returns:
        ``(B, R)`` float32 that holds integers.
    """
    if len(states) >= _LEAST_ROWS and states.shape[1] % 8 == 0 and len(weights) % 8 == 0 and trusted(states.device):
        return torch._int_mm(states, weights.T).float()
    return states.float() @ float_weights.T


@cache
def trusted(device: torch.device) -> bool:
    """Whether int8 products on ``device`` are right at the extremes.

    Some processors without integer dot products add neighbouring products in 16 bits, which saturate; a probe of
    extreme operands shows it. The answer chooses a way, never a result.
    """
    signs = torch.tensor([[1, 1, -1, 1, 1, -1, -1, -1]], dtype=torch.int8).repeat(32, 8)
    states = torch.cat([torch.full((32, 64), 127, dtype=torch.int8), signs * 127, torch.full_like(signs, -127)])
    try:
        found = torch._int_mm(states.to(device), states.to(device).T)
    except (RuntimeError, AttributeError):
        return False
    return torch.equal(found.cpu().long(), states.long() @ states.long().T)


@dataclass(frozen=True, eq=False)
class ByteLM:
    """An integer GRU over bytes with ``H`` units. Tensors are float32 that hold integers, but for the two named int8.

    Attributes:
        inputs: ``(256, 3H)``; U of gates r, z and of the candidate n, gate biases included.
        recurrent: ``(3H, H)`` int8; W, within +-127.
        recurrent_scale: ``(3H,)``; power of two that brings a row's sum to its unit.
        candidate_bias: ``(H,)``; b_n.
        head: ``(256, H)`` int8; W_o, within +-127.
        head_scale: ``(256,)``; power of two that brings a row's sum to its unit.
        head_bias: ``(256,)``; b_o.
        sigmoid: ``(2049,)``; 0 to 256 for arguments -8 to 8.
        tanh: ``(2049,)``; -127 to 127 for arguments -8 to 8.
        exp2: ``(1025,)``; ``round(2^16 * 2^(-i / 64))``.
        sum_steps: ``(512,)``; ``ceil(2^16 * 2^(i / 64))`` for i from 1, the borders of a base-2 logarithm.
    """

    inputs: Tensor
    recurrent: Tensor
    recurrent_scale: Tensor
    candidate_bias: Tensor
    head: Tensor
    head_scale: Tensor
    head_bias: Tensor
    sigmoid: Tensor
    tanh: Tensor
    exp2: Tensor
    sum_steps: Tensor

    def __post_init__(self) -> None:
        """Prove that no sum is rounded.

        Raises:
            ProxyByteError: if a shape, a type or a bound does not hold; the message names the tensor.
        """
        if self.inputs.shape[0] != VOCABULARY or self.head.shape[0] != VOCABULARY:
            raise ProxyByteError(
                f"M1 reads {self.inputs.shape[0]} symbols and predicts {self.head.shape[0]}; of bytes there are 256"
            )
        for name, shape in _shapes(self.width).items():
            tensor, dtype = getattr(self, name), torch.int8 if name in _INT8 else torch.float32
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise ProxyByteError(f"M1's {name!r} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}")
        for name, (least, most) in _BOUNDS.items():
            tensor = getattr(self, name).float()
            if not bool(((tensor == tensor.round()) & (tensor >= least) & (tensor <= most)).all()):
                raise ProxyByteError(f"M1's {name!r} must hold integers from {least} to {most}")
        for name in _INT8:
            if int(getattr(self, name).long().abs().sum(dim=1).max()) * STATE_MAX >= EXACT:
                raise ProxyByteError(f"M1's {name!r} has a row whose sum may pass 2^24 and so be rounded")
            scale = getattr(self, f"{name}_scale")
            if not bool(((torch.frexp(scale).mantissa == 0.5) & (scale <= 2**8) & (scale >= 2**-24)).all()):
                raise ProxyByteError(f"M1's '{name}_scale' must hold powers of two")
        if int(self.exp2[0]) != 2**WEIGHT_BITS:
            raise ProxyByteError("M1's 'exp2' must begin at 2^16")

    @property
    def width(self) -> int:
        """Units of the state, H."""
        return self.head.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.head.device

    @property
    def num_parameters(self) -> int:
        """Weights and biases, tables left out."""
        return self.inputs.numel() + self.recurrent.numel() + self.head.numel() + self.width + VOCABULARY

    def to(self, device: torch.device | str) -> Self:
        """The same model with its tensors on ``device``."""
        return dataclasses.replace(self, **{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def fresh(self, count: int) -> Tensor:
        """States before any byte, shape ``(count, H)`` int8."""
        return self.head.new_zeros(count, self.width)

    def step(self, states: Tensor, inputs: Tensor) -> Tensor:
        """States after one more byte.

        Args:
            states: ``(B, H)`` int8.
            inputs: ``(B,)`` int64, the bytes.

        Returns:
            ``(B, H)`` int8; row ``i`` depends on row ``i`` of the arguments alone, bit for bit.
        """
        wide = self.width
        sums = exact_products(states, self.recurrent, self._float_weights["recurrent"])
        sums = sums.mul_(self.recurrent_scale).round_()
        given = self.inputs.index_select(0, inputs)
        gates = _look_up(self.sigmoid, sums[:, : 2 * wide] + given[:, : 2 * wide])
        inner = (sums[:, 2 * wide :] + self.candidate_bias).clamp_(-INNER_MAX, INNER_MAX)
        inner = inner.mul_(gates[:, :wide]).mul_(2.0 ** (STATE_BITS - 2 * GATE_BITS)).round_()
        candidate = _look_up(self.tanh, inner.add_(given[:, 2 * wide :]))
        kept = states.float().sub_(candidate).mul_(gates[:, wide:])
        return kept.add_(candidate.mul_(2.0**GATE_BITS)).mul_(2.0**-GATE_BITS).round_().to(torch.int8)

    def frequencies(self, states: Tensor) -> Tensor:
        """Frequencies of the next byte, ``(B, 256)`` int64; each at least 1, each row's sum 2^16."""
        below, likeliest = self._logits_below_largest(states)
        weights = self._weights(below)
        factor = ((2**FREQUENCY_BITS - VOCABULARY) << _RECIPROCAL_BITS) // weights.sum(dim=1, keepdim=True)
        result = weights.mul_(factor).bitwise_right_shift_(_RECIPROCAL_BITS).add_(1)
        return result.scatter_add_(1, likeliest[:, None], 2**FREQUENCY_BITS - result.sum(dim=1, keepdim=True))

    def entropies(self, states: Tensor) -> Tensor:
        """Entropy of the next byte in 64ths of a bit, rounded down, ``(B,)`` int64.

        With logits ``-d`` (64ths of a bit below the largest) and weights ``w = 2^(-d/64)``, the entropy of ``w / S``,
        ``S = sum w``, is ``log2 S + sum(w d) / (64 S)``.
        """
        below, _ = self._logits_below_largest(states)
        weights = self._weights(below)
        total = weights.sum(dim=1)
        log_total = torch.bucketize(total, self.sum_steps.long(), right=True)
        return log_total + (weights * below).sum(dim=1) // total

    def _logits_below_largest(self, states: Tensor) -> tuple[Tensor, Tensor]:
        logits = exact_products(states, self.head, self._float_weights["head"])
        logits = logits.mul_(self.head_scale).round_().add_(self.head_bias)
        largest, likeliest = logits.max(dim=1)
        return (largest[:, None] - logits).clamp_(max=EXPONENTS).to(torch.int32), likeliest

    def _weights(self, below: Tensor) -> Tensor:
        return self.exp2.index_select(0, below.view(-1)).view(below.shape).long()

    @cached_property
    def _float_weights(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).float() for name in _INT8}


_BOUNDS = {
    "inputs": (-EXACT // 4, EXACT // 4),
    "recurrent": (-STATE_MAX, STATE_MAX),
    "candidate_bias": (-EXACT // 4, EXACT // 4),
    "head": (-STATE_MAX, STATE_MAX),
    "head_bias": (-EXACT // 4, EXACT // 4),
    "sigmoid": (0, 2**GATE_BITS),
    "tanh": (-STATE_MAX, STATE_MAX),
    "exp2": (0, 2**WEIGHT_BITS),
    "sum_steps": (2**WEIGHT_BITS, EXACT),
}


def _shapes(wide: int) -> dict[str, tuple[int, ...]]:
    return {
        "inputs": (VOCABULARY, 3 * wide),
        "recurrent": (3 * wide, wide),
        "recurrent_scale": (3 * wide,),
        "candidate_bias": (wide,),
        "head": (VOCABULARY, wide),
        "head_scale": (VOCABULARY,),
        "head_bias": (VOCABULARY,),
        "sigmoid": (2 * INDEX_MAX + 1,),
        "tanh": (2 * INDEX_MAX + 1,),
        "exp2": (EXPONENTS + 1,),
        "sum_steps": (SUM_STEPS,),
    }


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """Elements of ``table`` at ``index`` (whole float32 numbers around 0), clamped to its ends."""
    places = index.clamp_(-INDEX_MAX, INDEX_MAX).add_(INDEX_MAX).to(torch.int32)
    return table.index_select(0, places.view(-1)).view(index.shape)
