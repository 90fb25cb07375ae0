"""In which numbers a run computes."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch

from .config import Precision

log = logging.getLogger(__name__)


def settle_precision(precision: Precision, cpu: bool) -> Precision:
    """What ``precision`` means on this machine; sets the precision of float32 matrix products.

    ``auto`` is a rule and no measurement, so that a run started twice computes the same (docs/training.md has the
    figures behind it). Where another is asked for and this processor has no instructions for it, a warning says so.
    """
    able = torch.cpu.get_capabilities() if cpu else {}
    if precision is Precision.AUTO:
        precision = fastest_on_cpu(able) if cpu else Precision.BFLOAT16
    elif cpu and precision is Precision.BFLOAT16 and fastest_on_cpu(able) is Precision.FLOAT32:
        log.warning(
            "precision=bfloat16: this processor has no bf16 instructions, so a step takes several times as long as in "
            "float32: set precision=auto"
        )
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
    return f"auto, {reasons[fastest_on_cpu(torch.cpu.get_capabilities())]}"


def fastest_on_cpu(able: Mapping[str, object]) -> Precision:
    """By the processor's instructions: bf16 tiles serve float32 too; without tiles bf16 takes autocast.

    Args:
        able: what the processor has by name, as ``torch.cpu.get_capabilities()`` tells.
    """
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
