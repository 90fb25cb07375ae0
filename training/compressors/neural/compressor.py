"""The neural compressor as published: segments, windows, and M1 at encode time."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from proxybyte.artefacts import COMPRESSOR_MANIFEST
from proxybyte.errors import ProxyByteError

from ..protocol import CannotEncode, check_codes, code_dtype, read_folder, write_folder
from .byte_lm import ByteLM
from .windows import MOST_ENTROPY, WINDOW_BITS, Ending, SegmentRule, Window, WindowCoder, segments, stretches

CACHED = 1 << 20
"""Stretches, strings with their first window, and codes with their string that are remembered, each."""
_LANES = {"cpu": 4096, "cuda": 65_536}


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


@dataclass(frozen=True)
class NeuralSettings:
    """How M1 is used.

    Attributes:
        bits: bits of a window: 8, 12, 16 or 24.
        ending: how a window ends; see :class:`Ending`.
        threshold: bits of entropy above which a byte opens a segment; 8 for never.
        jump: bits by which entropy must rise for a byte to open a segment; 8 for never.
        least_bytes_per_symbol: a document that codes to fewer stays raw; by default a symbol's own size.
    """

    bits: int = 16
    ending: Ending = Ending.STOP
    threshold: float = 4.5
    jump: float = 3.0
    least_bytes_per_symbol: float | None = None

    def __post_init__(self) -> None:
        """Take the ending by its name too, and check the rest.

        Raises:
            ProxyByteError: if a window's size or a number of bits is not offered.
        """
        object.__setattr__(self, "ending", Ending(self.ending))
        if self.bits not in WINDOW_BITS:
            raise ProxyByteError(f"windows have {', '.join(map(str, WINDOW_BITS))} bits, not {self.bits}")
        for name in ("threshold", "jump"):
            if not 0 <= getattr(self, name) <= MOST_ENTROPY:
                raise ProxyByteError(f"--{name} {getattr(self, name)}: give bits from 0 to 8 (8: never)")

    @property
    def least(self) -> float:
        """Fewest bytes a symbol, the default resolved."""
        return self.bits / 8 if self.least_bytes_per_symbol is None else self.least_bytes_per_symbol


@dataclass(frozen=True)
class _CodedStretch:
    """Codes of a stretch and the bytes that each took in, as the bytes of arrays; how many windows were cut."""

    codes: bytes
    lengths: bytes
    cut: int


class NeuralCompressor:
    """Arithmetic coding under M1 in windows of equal information, within segments that M1's entropy makes.

    The code of a stretch of text is a pure function of its bytes (:mod:`.byte_lm` says why), so stretches are coded in
    any batches and remembered, and the same document has the same code on every machine.

    Args:
        lm: M1.
        settings: how it is used.
        name: what people call it; by default ``neural-BITS``, with ``-cut`` for the lossy ending.
        made: how M1 was fitted, for the manifest; JSON values.
        device: where M1 runs; by default :func:`default_device`.
    """

    family = "neural"

    def __init__(
        self,
        lm: ByteLM,
        settings: NeuralSettings,
        name: str | None = None,
        made: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
    ):
        self.lm = lm.to(device or default_device())
        self.settings = settings
        self.lossless = settings.ending is Ending.STOP
        self.name = name or f"neural-{settings.bits}" + ("" if self.lossless else "-cut")
        self.made = dict(made or {})
        self.windows, self.cut_windows = 0, 0
        self._rule = SegmentRule(settings.threshold, settings.jump)
        self._coder = WindowCoder(self.lm, settings.bits, settings.ending)
        self.num_symbols = self._coder.num_codes
        self._stretches: dict[bytes, _CodedStretch | None] = {}
        self._windows: dict[bytes, Window] = {}
        self._spelled: dict[int, bytes] = {}

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """Codes of each document, or why it has none.

        :attr:`windows` and :attr:`cut_windows` count what was coded since the compressor was made, and how many of
        these windows lose their last byte.
        """
        pieces = self._coded_stretches(documents)
        return [self._assemble(document, parts) for document, parts in zip(documents, pieces, strict=True)]

    def chunk_ends(self, document: bytes) -> np.ndarray:
        """Byte offset at the end of what each symbol of ``document`` took in, shape ``(symbols,)``, int64.

        What :meth:`borders` says, but from the document, and so known where windows are cut as well.
        """
        (parts,) = self._coded_stretches([document])
        coded = [self._stretches[part] for part in parts]
        lengths = np.frombuffer(b"".join(one.lengths for one in coded if one is not None), np.uint16)
        return np.cumsum(lengths, dtype=np.int64)

    def decode(self, codes: np.ndarray) -> bytes:
        """Bytes of one document.

        Raises:
            ProxyByteError: if a code is out of range or means nothing, or windows were cut and so lost bytes.
        """
        return b"".join(self._spell(codes))

    def borders(self, codes: np.ndarray) -> np.ndarray | None:
        """Byte offset at the end of each symbol, shape ``(len(codes),)``, int64; None where windows are cut.

        Raises:
            ProxyByteError: if a code is out of range or means nothing.
        """
        if not self.lossless:
            return None
        spelled = self._spell(codes)
        return np.cumsum(np.fromiter(map(len, spelled), np.int64, len(spelled)))

    def save(self, folder: Path) -> None:
        """Write ``compressor.json`` and ``m1.safetensors`` into ``folder``."""
        fields = {"name": self.name, "num_symbols": self.num_symbols, "lossless": self.lossless, "made": self.made}
        write_folder(folder, self.family, {FILE: lm_to_bytes(self.lm)}, settings=asdict(self.settings), **fields)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ProxyByteError: if a file is missing, truncated, altered, or no M1 of bytes.
        """
        manifest, files = read_folder(folder, cls.family, [FILE])
        try:
            settings = NeuralSettings(**manifest["settings"])
        except (KeyError, TypeError, ValueError) as error:
            raise ProxyByteError(
                f"{Path(folder) / COMPRESSOR_MANIFEST}: has no settings of a neural compressor: {error}"
            ) from None
        lm = lm_from_bytes(files[FILE], Path(folder) / FILE)
        return cls(lm, settings, manifest.get("name"), manifest.get("made"))

    @property
    def _lanes(self) -> int:
        return _LANES.get(self.lm.device.type, _LANES["cpu"])

    def _coded_stretches(self, documents: Sequence[bytes]) -> list[list[bytes]]:
        """The stretches of each document, all of them coded and remembered."""
        pieces = [stretches(document) for document in documents]
        self._make_room()
        for batch in _batches(set(chain.from_iterable(pieces)) - self._stretches.keys(), self._lanes):
            self._code_stretches(batch)
        return pieces

    def _make_room(self) -> None:
        for remembered in (self._stretches, self._windows):
            if len(remembered) > CACHED:
                remembered.clear()

    def _code_stretches(self, strings: list[bytes]) -> None:
        cut = segments(self.lm, self._rule, strings)
        self._find_windows(set(chain.from_iterable(cut)))
        for string, parts in zip(strings, cut, strict=True):
            windows = list(self._chain(parts))
            if any(window.length == 0 for window in windows):
                self._stretches[string] = None
                continue
            codes = np.array([window.code for window in windows], code_dtype(self.num_symbols))
            lengths = np.array([window.length for window in windows], np.uint16)
            cut_windows = sum(window.cut for window in windows)
            self._stretches[string] = _CodedStretch(codes.tobytes(), lengths.tobytes(), cut_windows)

    def _find_windows(self, strings: set[bytes]) -> None:
        """Remember the first window of each string, of what follows it, and so on."""
        while strings:
            for batch in _batches(strings - self._windows.keys(), self._lanes):
                self._windows.update(zip(batch, self._coder.first_windows(batch), strict=True))
            rests = ((string, self._windows[string].length) for string in strings)
            strings = {string[length:] for string, length in rests if 0 < length < len(string)}

    def _chain(self, parts: Iterable[bytes]) -> Iterator[Window]:
        for part in parts:
            while part:
                window = self._windows[part]
                yield window
                if not window.length:
                    return
                part = part[window.length :]

    def _assemble(self, document: bytes, parts: list[bytes]) -> np.ndarray | CannotEncode:
        coded = [self._stretches[part] for part in parts]
        whole = [code for code in coded if code is not None]
        if len(whole) < len(coded):
            where = sum(map(len, parts[: coded.index(None)]))
            return CannotEncode(f"M1 finds no {self.settings.bits}-bit code for a byte after offset {where}")
        codes = np.frombuffer(b"".join(one.codes for one in whole), code_dtype(self.num_symbols))
        if len(document) < self.settings.least * len(codes):
            return CannotEncode(
                f"codes to {len(document) / len(codes):.2f} bytes a symbol, fewer than {self.settings.least:g}"
            )
        self.windows += len(codes)
        self.cut_windows += sum(one.cut for one in whole)
        return codes

    def _spell(self, codes: np.ndarray) -> list[bytes]:
        if not self.lossless:
            raise ProxyByteError(f"{self.name} cuts windows at {self.settings.bits} bits, so its codes have lost bytes")
        codes = check_codes(codes, self.num_symbols, self.name)
        if len(self._spelled) > CACHED:
            self._spelled.clear()
        unknown = [code for code in np.unique(codes).tolist() if code not in self._spelled]
        for first in range(0, len(unknown), self._lanes):
            some = unknown[first : first + self._lanes]
            self._spelled.update(zip(some, self._coder.spell(some), strict=True))
        return [self._spelled[code] for code in codes.tolist()]


def default_device() -> torch.device:
    """The accelerator of this process (``LOCAL_RANK`` says which, as set by ``accelerate launch``), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _batches(strings: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Sorted batches of ``strings``; neighbours share prefixes."""
    ordered = sorted(strings)
    return (ordered[first : first + size] for first in range(0, len(ordered), size))
