"""The compiled neural codebook as a compressor: NumPy alone, one small file."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
from safetensors.numpy import load, save

from proxybyte.errors import ProxyByteError

from ..protocol import CannotEncode, check_codes, code_dtype, read_folder, usable_threads, write_folder
from .automaton import Automaton
from .trie import Trie

FILE = "codebook.safetensors"
_LEAST_PART_BYTES, _MOST_PART_BYTES = 1 << 20, 1 << 26
"""Documents are parsed together in parts of about this many bytes; working memory is four times a part."""


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
        _ = self._automaton.table  # made here, so that threads find it
        self.symbol_bytes = trie.spellings

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """Codes of each document; every document has one. Parts of the batch are coded on threads."""
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        threads = usable_threads()
        part_bytes = int(np.clip(lengths.sum() // threads, _LEAST_PART_BYTES, _MOST_PART_BYTES))
        part = (np.cumsum(lengths) - lengths) // part_bytes
        parts = list(pairwise([0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(documents)]))
        if threads == 1 or len(parts) == 1:
            coded = [self._encode_part(documents[first:last]) for first, last in parts]
        else:
            with ThreadPoolExecutor(threads) as pool:
                coded = list(pool.map(lambda ends: self._encode_part(documents[slice(*ends)]), parts))
        return [code for part_codes in coded for code in part_codes]

    def _encode_part(self, documents: Sequence[bytes]) -> list[np.ndarray]:
        text = np.frombuffer(b"".join(documents), np.uint8)
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        parsed = self._automaton.parse(text, np.cumsum(lengths) - lengths)
        return [code.astype(code_dtype(self.num_symbols), copy=False) for code in parsed]

    def decode(self, codes: np.ndarray) -> bytes:
        """Bytes of one document.

        Raises:
            ProxyByteError: if a code is out of range.
        """
        return self.symbol_bytes.spell(check_codes(codes, self.num_symbols, self.name))

    def borders(self, codes: np.ndarray) -> np.ndarray:
        """Byte offset at the end of each symbol, shape ``(len(codes),)``, int64.

        Raises:
            ProxyByteError: if a code is out of range.
        """
        return self.symbol_bytes.ends(check_codes(codes, self.num_symbols, self.name))

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
        manifest, files = read_folder(folder, cls.family, [FILE])
        path = Path(folder) / FILE
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
