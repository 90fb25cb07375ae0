"""The neural coder written down plainly: one segment at a time, one byte at a time, nothing shared or remembered.

It is what the benchmark compares the batched coder with, and its codes must be the same.
"""

import torch

from proxybyte.training.compressors.neural.byte_lm import FREQUENCY_BITS, LOGIT_BITS, ByteLM
from proxybyte.training.compressors.neural.compressor import NeuralSettings
from proxybyte.training.compressors.neural.windows import CELL_BITS, stretches

_CELL = 1 << CELL_BITS


def naive_codes(lm: ByteLM, settings: NeuralSettings, document: bytes) -> list[int]:
    """Codes of ``document`` with the lossless ending and 16 or 24 bits.

    Raises:
        ValueError: if a byte has no code.
    """
    codes: list[int] = []
    for stretch in stretches(document):
        for segment in _segments(lm, settings, stretch):
            while segment:
                code, length = _window(lm, settings.bits, segment)
                codes.append(code)
                segment = segment[length:]
    return codes


def _states(lm: ByteLM, text: bytes) -> torch.Tensor:
    """States before each byte of ``text`` and after the last, shape ``(len(text) + 1, H)``."""
    states = [lm.fresh(1)]
    for byte in text:
        states.append(lm.step(states[-1], torch.tensor([byte])))
    return torch.cat(states)


def _segments(lm: ByteLM, settings: NeuralSettings, stretch: bytes) -> list[bytes]:
    entropy = lm.entropies(_states(lm, stretch[:-1])).tolist()
    threshold, jump = (int(bits * 2**LOGIT_BITS) for bits in (settings.threshold, settings.jump))
    opens = [i for i in range(1, len(stretch)) if entropy[i] > threshold or entropy[i] - entropy[i - 1] > jump]
    return [stretch[start:end] for start, end in zip([0, *opens], [*opens, len(stretch)], strict=True)]


def _window(lm: ByteLM, bits: int, text: bytes) -> tuple[int, int]:
    """Code and length of the longest beginning of ``text`` that a cell names."""
    low, high, found = 0, 1 << bits + CELL_BITS, (0, 0)
    state = lm.fresh(1)
    for length in range(len(text) + 1):
        cumulative = lm.frequencies(state)[0].cumsum(dim=0).numpy()
        borders = low + ((high - low) * cumulative >> FREQUENCY_BITS)
        cells = borders[:-1] // _CELL
        named = cells[(borders[:-1] % _CELL != 0) & (cells * _CELL >= low) & ((cells + 1) * _CELL <= high)]
        if length and len(named):
            found = int(named[0]), length
        if length == len(text):
            break
        byte = text[length]
        low, high = int(borders[byte - 1]) if byte else low, int(borders[byte])
        if -(-low // _CELL) * _CELL + _CELL > high:
            break
        state = lm.step(state, torch.tensor([byte]))
    if not found[1]:
        raise ValueError(f"no code names a beginning of {text!r}")
    return found
