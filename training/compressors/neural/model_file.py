"""M1 on disk: one safetensors file of integers, about a byte for each weight."""

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from proxybyte.errors import ProxyByteError

from .byte_lm import ByteLM

FILE = "m1.safetensors"


def lm_to_bytes(lm: ByteLM) -> bytes:
    """The file of ``lm``; whole numbers as int32, weights as int8, scales as float32."""
    return save({name: _compact(name, tensor.cpu()) for name, tensor in lm.tensors().items()})


def lm_from_bytes(content: bytes, path: object) -> ByteLM:
    """What :func:`lm_to_bytes` wrote.

    Args:
        content: the file.
        path: its name, for messages.

    Raises:
        ProxyByteError: if it is no such file, or not a model of bytes that computes exactly.
    """
    try:
        tensors = load(content)
    except SafetensorError:
        raise ProxyByteError(f"{path}: is no safetensors file; fit or copy M1 again") from None
    expected = set(ByteLM.__dataclass_fields__)
    if set(tensors) != expected:
        odd = sorted(set(tensors) ^ expected)
        raise ProxyByteError(f"{path}: is no M1: {odd[0]!r} is {'missing' if odd[0] in expected else 'unknown'}")
    try:
        return ByteLM(**{name: t if t.dtype == torch.int8 else t.float() for name, t in tensors.items()})
    except ProxyByteError as error:
        raise ProxyByteError(f"{path}: {error}") from None


def _compact(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.int8 or name.endswith("_scale") else tensor.to(torch.int32)
