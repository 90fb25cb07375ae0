"""Models as evaluations take them: found by the name that a person gives, on a device, and what they read."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from proxybyte.artefacts import ModelFolder
from proxybyte.eval.bpb import BPBResult, bits_per_byte, embedding_rows, tokenizer_bits_per_byte
from proxybyte.eval.scoring import Scoring, gives_target_nll
from proxybyte.model_loading import load_causal_model, load_tokenizer, pick_device
from proxybyte.symbols import NUM_RAW_SYMBOLS


class ModelKind(StrEnum):
    """What a model reads."""

    BYTES = "bytes"
    TOKENS = "tokens"


def text_scorer(model: Any, found: ModelFolder, scoring: Scoring) -> Callable[[Sequence[bytes]], BPBResult]:
    """Bits per byte of texts under the ``model`` of ``found`` as it reads them: by bytes, or by its own tokens."""
    if model_kind(model) is ModelKind.BYTES:
        return lambda texts: bits_per_byte(model, texts, scoring)
    tokenizer = load_tokenizer(found.model)
    return lambda texts: tokenizer_bits_per_byte(model, tokenizer, texts, scoring)


def load_model(found: ModelFolder, device: str, dtype: str) -> Any:
    """A causal model in evaluation mode on a device; arguments and errors as of :mod:`proxybyte.model_loading`."""
    model: Any = load_causal_model(found.model, dtype)
    return model.to(pick_device(device))


def model_kind(model: Any) -> ModelKind:
    """Bytes for ours and for its native export, tokens for any other model."""
    is_ours = gives_target_nll(model) or embedding_rows(model) == NUM_RAW_SYMBOLS
    return ModelKind.BYTES if is_ours else ModelKind.TOKENS
