"""What each byte of a text costs under a byte model: for colouring a text, and for looking where two models differ."""

import math
from typing import Any

import numpy as np
import torch

from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.eval.scoring import bare, position_limit
from proxybyte.symbols import NUM_RAW_SYMBOLS, document_opening


def byte_bits(model: Any, text: bytes) -> np.ndarray:
    """Bits of each byte of ``text`` given those before it, as the model runs on raw bytes (its first 320 rows).

    Args:
        model: ``ProxyByteForCausalLM``, or a plain causal model that reads symbols ``0 .. 319``.
        text: one document's beginning, which must fit the model's context.

    Returns:
        float64, shape ``(len(text),)``; their sum is the document's part of :func:`~proxybyte.eval.bits_per_byte`.

    Raises:
        ProxyByteError: if the text exceeds the context.
    """
    model = bare(model)
    opening = document_opening(model.config)
    limit = position_limit(model) - len(opening)
    if len(text) > limit:
        raise ProxyByteError(f"a text of {len(text)} bytes exceeds the model's context of {limit}: give less of it")
    symbols = torch.tensor([[*opening, *encode_bytes(text, np.int64).tolist()]], device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(input_ids=symbols, use_cache=False).logits[0, len(opening) - 1 : -1, :NUM_RAW_SYMBOLS]
    finally:
        model.train(was_training)
    chosen = symbols[0, len(opening) :, None]
    nats = -logits.double().log_softmax(-1).gather(-1, chosen)[:, 0]
    return nats.cpu().numpy() / math.log(2)
