"""The compiled neural codebook as a compressor: NumPy alone, one small file."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
from safetensors.numpy import load, save

from proxybyte.errors import ProxyByteError

from ..protocol import CannotEncode, code_dtype
from ..storage import read_folder, write_folder
from .automaton import Automaton, Speller
from .trie import Trie

FILE = "codebook.safetensors"
_BATCH_BYTES = 1 << 26
"""Documents are parsed together up to about this many bytes; working memory is four times that."""


class CodebookCompressor:
    """Greedy parsing with a finite dictionary of byte strings. Lossless on any bytes.

    Args:
        trie: the dictionary; node ``i`` is code ``i``.
        name: what people call it; by default ``codebook-N`` with ``N`` codes.
        made: how it was made, for the manifest; JSON values.
    """

    family = "codebook"
    lossless = True

    def __init__(self, trie: Trie, name: str | None = None, made: Mapping[str, Any] | None = None):
        self.trie = trie
        self.num_symbols = len(trie)
        self.name = name or f"codebook-{len(trie)}"
        self.made = dict(made or {})
        self._automaton = Automaton(trie)
        self._speller = Speller(trie)

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """Codes of each document; every document has one."""
        codes: list[np.ndarray | CannotEncode] = []
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        parts = (np.cumsum(lengths) - lengths) // _BATCH_BYTES
        borders = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(documents)]
        dtype = code_dtype(self.num_symbols)
        for first, last in pairwise(borders):
            text = np.frombuffer(b"".join(documents[first:last]), np.uint8)
            starts = np.cumsum(lengths[first:last]) - lengths[first:last]
            codes += [code.astype(dtype, copy=False) for code in self._automaton.parse(text, starts)]
        return codes

    def decode(self, codes: np.ndarray) -> bytes:
        """Bytes of one document.

        Raises:
            ProxyByteError: if a code is out of range.
        """
        return self._speller.spell(self._checked(codes))

    def borders(self, codes: np.ndarray) -> np.ndarray:
        """Byte offset at the end of each symbol, shape ``(len(codes),)``, int64.

        Raises:
            ProxyByteError: if a code is out of range.
        """
        return np.cumsum(self.trie.spellings.lengths[self._checked(codes)])

    def save(self, folder: Path) -> None:
        """Write ``compressor.json`` and ``codebook.safetensors`` into ``folder``."""
        table = save({"prefixes": self.trie.prefixes, "last_bytes": self.trie.last_bytes})
        fields = {"name": self.name, "num_symbols": self.num_symbols, "lossless": self.lossless, "made": self.made}
        write_folder(folder, self.family, {FILE: table}, **fields)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ProxyByteError: if a file is missing, truncated, altered, or no codebook.
        """
        manifest, files = read_folder(folder, cls.family)
        path = Path(folder) / FILE
        if FILE not in files:
            raise ProxyByteError(f"{path}: is missing; compile or copy the codebook again")
        try:
            columns = load(files[FILE])
        except safetensors.SafetensorError:
            raise ProxyByteError(f"{path}: is no safetensors file; compile or copy the codebook again") from None
        if set(columns) != {"prefixes", "last_bytes"}:
            raise ProxyByteError(f"{path}: holds {sorted(columns)}, not a codebook's prefixes and last_bytes")
        try:
            trie = Trie(columns["prefixes"], columns["last_bytes"])
            trie.spellings  # noqa: B018 - checks the strings' lengths
        except ProxyByteError as error:
            raise ProxyByteError(f"{path}: {error}") from None
        return cls(trie, manifest.get("name"), manifest.get("made"))

    def _checked(self, codes: np.ndarray) -> np.ndarray:
        codes = np.asarray(codes)
        if codes.size and codes.dtype.kind not in "ui":
            raise ProxyByteError(f"codes of {self.name} are integers, not {codes.dtype}")
        wrong = np.flatnonzero((codes < 0) | (codes >= self.num_symbols))
        if len(wrong):
            raise ProxyByteError(
                f"code {codes[wrong[0]]} at position {wrong[0]} is out of range: "
                f"{self.name} has codes 0 to {self.num_symbols - 1}"
            )
        return codes.astype(np.int64, copy=False)
