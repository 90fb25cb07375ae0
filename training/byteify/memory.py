"""Whether the conversion fits in memory, from shapes alone."""

import psutil
import torch
from transformers import AutoModelForCausalLM

from proxybyte.errors import ProxyByteError

from .base import Base

_OVERHEAD = 600_000_000
"""Bytes for the libraries and small things."""


def needed_bytes(base: Base, dtype: torch.dtype) -> int:
    """Most memory that the conversion holds at once: the base, and the new embedding and head beside the old."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(base.config)
    weights = sum(weight.numel() for weight in model.parameters())
    ends = {id(module.weight): module.weight.numel() for module in (model.get_input_embeddings(), model.lm_head)}
    ends_bytes = sum(ends.values()) * dtype.itemsize
    # Reading a GGUF keeps each tensor in float32 once more; a row scheme widens the rows to float32.
    reading = weights * 4 if base.source.gguf_file else 0
    return weights * dtype.itemsize + max(reading, ends_bytes + 4 * max(ends.values())) + _OVERHEAD


def check_memory(base: Base, dtype: torch.dtype) -> None:
    """Refuse a conversion that would not fit.

    Raises:
        ProxyByteError: with both figures and what to do.
    """
    needed, free = needed_bytes(base, dtype), psutil.virtual_memory().available
    if needed > free:
        raise ProxyByteError(
            f"{base.source.given}: turning it takes {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
            "pass --dtype bfloat16, or use a machine with more memory"
        )
