"""The neural compressor as published: segments, windows, and M1 at encode time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from proxybyte.errors import ProxyByteError

from ..protocol import CannotEncode, code_dtype
from ..storage import read_folder, write_folder
from .byte_lm import ByteLM
from .model_file import FILE, lm_from_bytes, lm_to_bytes
from .segmentation import SegmentRule, segments, stretches
from .windows import Ending, Window, WindowCoder

CACHED = 1 << 20
"""Stretches, and strings with their first window, that are remembered."""
_LANES = {"cpu": 4096, "cuda": 65_536}
_NEVER = 8.0
"""Bits of entropy that a byte cannot exceed."""


@dataclass(frozen=True)
class NeuralSettings:
    """How M1 is used.

    Attributes:
        bits: bits of a window: 8, 12, 16 or 24. With 8, bytes that are rare under M1 cannot be coded.
        ending: how a window ends; see :class:`Ending`.
        threshold: bits of entropy above which a byte opens a segment; 8 or more for never.
        jump: bits by which entropy must rise for a byte to open a segment; 8 or more for never.
        least_bytes_per_symbol: a document that codes to fewer stays raw; by default a symbol's own size.
    """

    bits: int = 16
    ending: Ending = Ending.STOP
    threshold: float = _NEVER
    jump: float = _NEVER
    least_bytes_per_symbol: float | None = None

    @property
    def least(self) -> float:
        """Fewest bytes a symbol, the default resolved."""
        return self.bits / 8 if self.least_bytes_per_symbol is None else self.least_bytes_per_symbol


class NeuralCompressor:
    """Arithmetic coding under M1 in windows of equal information, within segments that M1's entropy makes.

    The code of a stretch of text is a pure function of its bytes (:mod:`.byte_lm` says why), so stretches are coded in
    any batches and remembered, and the same document has the same code on every machine.

    Args:
        lm: M1.
        settings: how it is used.
        name: what people call it; by default ``neural-BITS``, with ``-cut`` for the lossy ending.
        made: how M1 was fitted, for the manifest; JSON values.
        device: where M1 runs; by default the first accelerator, else the CPU.
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
        self.lm = lm.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.settings = settings
        self.num_symbols = 1 << settings.bits
        self.lossless = settings.ending is Ending.STOP
        self.name = name or f"neural-{settings.bits}" + ("" if self.lossless else "-cut")
        self.made = dict(made or {})
        self.windows, self.cut_windows = 0, 0
        self._rule = SegmentRule(settings.threshold, settings.jump)
        self._coder = WindowCoder(self.lm, settings.bits, settings.ending)
        self._stretches: dict[bytes, tuple[bytes, int] | None] = {}
        self._windows: dict[bytes, Window] = {}
        self._spelled: dict[int, bytes] = {}

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """Codes of each document, or why it has none.

        :attr:`windows` and :attr:`cut_windows` count what was coded since the compressor was made, and how many of
        these windows lose their last byte.
        """
        pieces = [stretches(document) for document in documents]
        self._make_room()
        for batch in _batches(set(chain.from_iterable(pieces)) - self._stretches.keys(), self._lanes):
            self._code_stretches(batch)
        return [self._assemble(document, parts) for document, parts in zip(documents, pieces, strict=True)]

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
        manifest, files = read_folder(folder, cls.family)
        path = Path(folder) / FILE
        if FILE not in files:
            raise ProxyByteError(f"{path}: is missing; fit or copy the compressor again")
        stored = dict(manifest.get("settings", {}))
        try:
            settings = NeuralSettings(**(stored | {"ending": Ending(stored.get("ending", Ending.STOP))}))
        except (TypeError, ValueError) as error:
            raise ProxyByteError(f"{folder}/compressor.json: settings of no neural compressor: {error}") from None
        return cls(lm_from_bytes(files[FILE], path), settings, manifest.get("name"), manifest.get("made"))

    @property
    def _lanes(self) -> int:
        return _LANES.get(self.lm.device.type, _LANES["cpu"])

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
            self._stretches[string] = codes.tobytes(), sum(window.cut for window in windows)

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
        codes = np.frombuffer(b"".join(code for code, _ in whole), code_dtype(self.num_symbols))
        if len(document) < self.settings.least * len(codes):
            return CannotEncode(
                f"codes to {len(document) / len(codes):.2f} bytes a symbol, fewer than {self.settings.least:g}"
            )
        self.windows += len(codes)
        self.cut_windows += sum(cut for _, cut in whole)
        return codes

    def _spell(self, codes: np.ndarray) -> list[bytes]:
        if not self.lossless:
            raise ProxyByteError(f"{self.name} cuts windows at {self.settings.bits} bits, so its codes have lost bytes")
        codes = np.asarray(codes)
        if codes.size and codes.dtype.kind not in "ui":
            raise ProxyByteError(f"codes of {self.name} are integers, not {codes.dtype}")
        wrong = np.flatnonzero((codes < 0) | (codes >= self.num_symbols))
        if len(wrong):
            raise ProxyByteError(
                f"code {codes[wrong[0]]} at position {wrong[0]} is out of range: "
                f"{self.name} has codes 0 to {self.num_symbols - 1}"
            )
        unknown = np.array([code for code in np.unique(codes).tolist() if code not in self._spelled], np.int64)
        for first in range(0, len(unknown), self._lanes):
            some = torch.from_numpy(unknown[first : first + self._lanes])
            self._spelled.update(zip(some.tolist(), self._coder.spell(some.to(self.lm.device)), strict=True))
        return [self._spelled[code] for code in codes.tolist()]


def _batches(strings: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Sorted batches of ``strings``; neighbours share prefixes."""
    ordered = sorted(strings)
    return (ordered[first : first + size] for first in range(0, len(ordered), size))
