"""Proof on the weights themselves: through the compressed view the byte model is its base."""

from dataclasses import dataclass
from typing import Any

import torch

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import NUM_RAW_SYMBOLS, View

from ..compressors import encode_one
from .base import Base
from .text_check import SAMPLE

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Largest difference of two logits, relative to the largest logit: what rounding alone may do."""


@dataclass(frozen=True)
class Probe:
    """The base's answer on a text, to compare with.

    Attributes:
        tokens: its token ids, shape ``(1, T)``; the first is its own beginning of a text, if it has one.
        logits: shape ``(1, T, V)``.
        opened: whether the first token is that beginning.
    """

    tokens: torch.Tensor
    logits: torch.Tensor
    opened: bool


@torch.inference_mode()
def ask_base(model: Any, base: Base, opening: int | None) -> Probe:
    """The base's logits on a short text after ``opening``."""
    codes = encode_one(base.compressor, SAMPLE.encode())
    ids = [*([] if opening is None else [opening]), *codes.tolist()]
    tokens = torch.tensor([ids])
    return Probe(tokens, model(input_ids=tokens, use_cache=False).logits, opening is not None)


@torch.inference_mode()
def difference(model: ProxyByteForCausalLM, probe: Probe) -> float:
    """Largest difference of logits, relative to the largest, in the compressed view.

    Both ways are compared: ids for ids, and with ``<comp>`` in the place of the base's own beginning.
    """
    symbols = probe.tokens + NUM_RAW_SYMBOLS
    ways = [symbols]
    if probe.opened:
        ways.append(torch.cat([torch.full((1, 1), int(View.COMPRESSED.open)), symbols[:, 1:]], dim=1))
    scale = probe.logits.abs().max().clamp(min=1e-30)
    found = [model(input_ids=way, use_cache=False).logits[..., NUM_RAW_SYMBOLS:] for way in ways]
    return max(float((logits - probe.logits).abs().max() / scale) for logits in found)


def check_exact(model: ProxyByteForCausalLM, probe: Probe, given: str) -> float:
    """The difference, where it is rounding.

    Raises:
        ProxyByteError: if it is more, so that the model would not be its base.
    """
    found = difference(model, probe)
    if not found <= TOLERANCE[model.dtype]:
        raise ProxyByteError(
            f"{given}: through the compressed view the logits differ by {found:.1e}, relative to the largest: "
            "please report this family"
        )
    return found
