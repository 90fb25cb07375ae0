"""Measuring trained models: bits per byte, lm-eval tasks.

The public names are imported on first use, so that the command line, which imports this package to find its commands,
need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxybyte.eval.baselines import gzip_bits_per_byte, uniform_bits_per_byte, xz_bits_per_byte
    from proxybyte.eval.bpb import (
        BPBResult,
        bits_per_byte,
        compressed_bits_per_byte,
        tokenizer_bits_per_byte,
        translation_bits_per_byte,
    )
    from proxybyte.eval.completing import ByteGeneration, complete_bytes
    from proxybyte.eval.noise import Noise, NoiseCurve, draw_noise, measure_noise, noise_crossing
    from proxybyte.eval.scoring import Scoring
    from proxybyte.eval.surprisal import byte_bits

__all__ = [
    "BPBResult",
    "ByteGeneration",
    "Noise",
    "NoiseCurve",
    "Scoring",
    "bits_per_byte",
    "byte_bits",
    "complete_bytes",
    "compressed_bits_per_byte",
    "draw_noise",
    "gzip_bits_per_byte",
    "measure_noise",
    "noise_crossing",
    "tokenizer_bits_per_byte",
    "translation_bits_per_byte",
    "uniform_bits_per_byte",
    "xz_bits_per_byte",
]
_HOMES = {name: "baselines" for name in __all__ if name.startswith(("gzip", "xz", "uniform"))} | {
    "ByteGeneration": "completing",
    "Scoring": "scoring",
    "byte_bits": "surprisal",
    "complete_bytes": "completing",
}
_HOMES |= dict.fromkeys(("Noise", "NoiseCurve", "draw_noise", "measure_noise", "noise_crossing"), "noise")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'bpb')}", __name__), name)
