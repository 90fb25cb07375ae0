"""In which numbers a run computes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from .config import Precision


def settle_precision(precision: Precision, cpu: bool) -> Precision:
    """What ``precision`` means on this machine; sets the precision of float32 matrix products.

    ``auto`` is a rule and no measurement, so that a run started twice computes the same (docs/training.md has the
    figures behind it).
    """
    if precision is Precision.AUTO:
        precision = _fastest_on_cpu() if cpu else Precision.BFLOAT16
    torch.set_float32_matmul_precision("medium" if precision is Precision.MEDIUM else "highest")
    return precision


def why_precision(asked: Precision, cpu: bool) -> str:
    """Why ``asked`` means what :func:`settle_precision` makes of it."""
    if asked is not Precision.AUTO:
        return "as asked"
    if not cpu:
        return "auto, on an accelerator"
    reasons = {
        Precision.MEDIUM: "the processor has bf16 tiles (AMX)",
        Precision.BFLOAT16: "the processor has bf16 instructions (AVX512-BF16) and no tiles",
        Precision.FLOAT32: "the processor has no bf16 instructions",
    }
    return f"auto, {reasons[_fastest_on_cpu()]}"


def _fastest_on_cpu() -> Precision:
    """By the processor's instructions: bf16 tiles serve float32 too; without tiles bf16 takes autocast."""
    able = torch.cpu.get_capabilities()
    if able.get("amx_bf16"):
        return Precision.MEDIUM
    return Precision.BFLOAT16 if able.get("avx512_bf16") else Precision.FLOAT32


@contextmanager
def exact_products() -> Iterator[None]:
    """Float32 matrix products in float32 for everything inside, whatever a run of this process has set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Context of a forward pass.

    Ours and not Accelerate's, which fixes one precision for the life of the process.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.BFLOAT16)
