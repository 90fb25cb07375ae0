"""Exact products of int8 matrices, by the machine's integer matrix units where they can be trusted."""

from functools import cache

import torch
from torch import Tensor

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
