"""Bytes to symbols and back, for any bytes, valid UTF-8 or not, at memory speed.

Plain functions, because a method on a tokenizer subclass vanishes without a word where that class is not loaded.
"""

import numpy as np

from .symbols import BYTE_OFFSET, NUM_BYTES


def encode_bytes(data: bytes | bytearray | memoryview, dtype: type = np.int32) -> np.ndarray:
    """Symbols of ``data``, one for each byte, without sentinels.

    Args:
        data: any bytes.
        dtype: an integer type that can hold 319.

    Returns:
        Array of shape ``(len(data),)``; element ``i`` is ``64 + data[i]``.
    """
    symbols: np.ndarray = np.frombuffer(data, dtype=np.uint8).astype(dtype)
    symbols += BYTE_OFFSET
    return symbols


def decode_bytes(symbols, *, strict: bool = False) -> bytes:
    """Bytes spelled by ``symbols``; the inverse of :func:`encode_bytes`.

    Args:
        symbols: integers of any shape that NumPy accepts; read in C order.
        strict: refuse symbols that are not bytes; otherwise sentinels and compressed symbols are left out.

    Raises:
        ValueError: with ``strict``, at the first symbol that is not a byte.
    """
    values = np.asarray(symbols).ravel()
    is_byte = (values >= BYTE_OFFSET) & (values < BYTE_OFFSET + NUM_BYTES)
    if not is_byte.all():
        if strict:
            where = int(np.argmin(is_byte))
            raise ValueError(f"symbol {values[where]} at position {where} is not a byte (64 to 319)")
        values = values[is_byte]
    data: np.ndarray = values.astype(np.uint8)
    data -= np.uint8(BYTE_OFFSET)  # modulo 256, as the narrowing was
    return data.tobytes()
