"""What every compressor is: bytes in, integers out, and a folder that carries it.

Codes are numbered from 0 here; the stream places code ``c`` at symbol ``320 + c`` (``proxybyte.symbols``). A
compressor's folder holds ``compressor.json`` with at least ``{"family": ...}`` and whatever files the family needs;
:func:`proxybyte.training.compressors.load_compressor` reads it back. Nothing is ever pickled.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from proxybyte.artefacts import COMPRESSOR_MANIFEST
from proxybyte.errors import ProxyByteError
from proxybyte.folders import whole_folder, write_bytes, write_json

_RUN_BYTES = 1 << 16

PUBLISHED = "published"
"""Ends the name of a compressor, and is the ``form`` in its manifest, where it writes what the published code writes
and our own form differs: for data and checkpoints made with that."""


class CannotEncode(ProxyByteError):
    """This document would not come back from its code unchanged; the message says why."""


@runtime_checkable
class Compressor(Protocol):
    """One way to write text in fewer symbols.

    Attributes:
        family: key of the class in the registry, for example ``"bpe"``; written to the folder's manifest.
        name: what people call this instance, for example ``"bpe-16384"``; appears in tables and run names.
        num_symbols: codes lie in ``0 .. num_symbols - 1``.
        lossless: whether ``decode(encode(x)) == x`` for every ``x`` that ``encode`` accepts.
    """

    family: str
    name: str
    num_symbols: int
    lossless: bool

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        """Code each document, on every core that this process may use; never raises for a document's content.

        Returns:
            For each document a one-dimensional array of :func:`code_dtype` codes, or the :class:`CannotEncode` that
            says why it has none (the caller falls back to raw bytes for that document, and counts it).
        """
        ...

    def decode(self, codes: np.ndarray) -> bytes:
        """Bytes of one document.

        Raises:
            ProxyByteError: if a code is out of range, the codes spell nothing, or the family cannot decode.
        """
        ...

    def borders(self, codes: np.ndarray) -> np.ndarray | None:
        """How many bytes symbols ``0 .. i`` spell in full, int64 of shape ``(len(codes),)``.

        Non-decreasing, and the last one is the document's length. A symbol that ends inside a byte or a token
        does not count it yet. ``None`` where a symbol's bytes depend on later symbols (gzip); such a compressor
        offers no hand-off documents.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the compressor into ``folder`` (made if absent)."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ProxyByteError: if a file is missing, truncated or of another family; the message names it.
        """
        ...


@runtime_checkable
class CutsWindows(Protocol):
    """A compressor whose codes may lose bytes, and that counts them.

    Attributes:
        cut_windows: symbols coded since the compressor was made that do not determine their last byte.
    """

    cut_windows: int

    def chunk_ends(self, document: bytes) -> np.ndarray:
        """Byte offset at the end of what each symbol of ``document`` took in, int64, one for each symbol."""
        ...


def cut_windows(compressor: Compressor) -> int:
    """Symbols that ``compressor`` has coded with the loss of a byte; 0 for families that lose none."""
    return compressor.cut_windows if isinstance(compressor, CutsWindows) else 0


def code_dtype(num_symbols: int) -> type[np.unsignedinteger]:
    """Smallest unsigned type that holds codes ``0 .. num_symbols - 1``."""
    for dtype in (np.uint8, np.uint16):
        if num_symbols <= np.iinfo(dtype).max + 1:
            return dtype
    return np.uint32


def check_codes(codes: np.ndarray, num_symbols: int, name: str) -> np.ndarray:
    """``codes`` as a one-dimensional integer array.

    Raises:
        ProxyByteError: at the first code outside ``0 .. num_symbols - 1``, or if they are no integers.
    """
    codes = np.asarray(codes)
    if codes.size == 0:
        return np.zeros(0, dtype=code_dtype(num_symbols))
    if codes.ndim != 1 or codes.dtype.kind not in "iu":
        raise ProxyByteError(f"{name}: codes are a one-dimensional array of integers, not {codes.ndim}-d {codes.dtype}")
    outside = (codes < 0) | (codes >= num_symbols)
    if outside.any():
        where = int(np.argmax(outside))
        raise ProxyByteError(f"{name}: code {codes[where]} at position {where} is not in 0 to {num_symbols - 1}")
    return codes


def usable_threads() -> int:
    """How many threads ``encode_batch`` may run: one a core, or ``RAYON_NUM_THREADS`` (which tokenizers obeys too).

    A caller that starts one process a core sets that variable to 1 in each.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("RAYON_NUM_THREADS", "")
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores


def encode_in_threads(
    encode: Callable[[bytes], np.ndarray | CannotEncode], documents: Sequence[bytes]
) -> list[np.ndarray | CannotEncode]:
    """``encode`` of each document, on :func:`usable_threads` threads; worth it where ``encode`` releases the GIL."""
    threads = min(usable_threads(), len(documents))
    if threads < 2:
        return [encode(document) for document in documents]
    shares = _runs(documents)
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda share: [encode(document) for document in share], shares)
        return [code for share in results for code in share]


def _runs(documents: Sequence[bytes]) -> list[list[bytes]]:
    """Consecutive documents in runs of at least ``_RUN_BYTES``: a thread's task costs as much as coding 1 kB."""
    runs: list[list[bytes]] = [[]]
    size = 0
    for document in documents:
        if size >= _RUN_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(document)
        size += len(document)
    return runs


def encode_one(compressor: Compressor, document: bytes) -> np.ndarray:
    """Code one document.

    Raises:
        CannotEncode: if the compressor cannot code it without loss.
    """
    (code,) = compressor.encode_batch([document])
    if isinstance(code, CannotEncode):
        raise code
    return code


def write_folder(folder: Path, family: str, files: Mapping[str, bytes], **fields: Any) -> None:
    """Write ``files`` and a manifest as ``folder``, whole or not at all; an earlier one of the family is replaced.

    Args:
        folder: where to.
        family: key of the compressor's class in the registry.
        files: contents by file name.
        fields: what else the manifest records; JSON values.

    Raises:
        ProxyByteError: if ``folder`` holds something else, or the disk does not take it.
    """
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    with whole_folder(Path(folder), output_kind(family)) as partial:
        for name, content in files.items():
            write_bytes(partial / name, content)
        write_json(partial / COMPRESSOR_MANIFEST, {"family": family, **fields, "sha256": sums})


def output_kind(family: str) -> str:
    """The kind of output (``proxybyte.folders``) that a compressor of ``family`` is."""
    return f"{family} compressor"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the compressor in ``folder``.

    Raises:
        ProxyByteError: if there is none, or it is no manifest.
    """
    path = Path(folder) / COMPRESSOR_MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise ProxyByteError(f"{path}: cannot be read ({error.strerror}); is this a compressor's folder?") from None
    except (ValueError, RecursionError):
        raise ProxyByteError(f"{path}: is not JSON, or is cut short; fit or copy the compressor again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("family"), str):
        raise ProxyByteError(f"{path}: names no family; it was not written by a compressor")
    return manifest


def read_folder(folder: Path, family: str, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the files ``names`` that :func:`write_folder` wrote, checked against their sums.

    Raises:
        ProxyByteError: if the folder is of another family, or a file is missing, truncated or altered.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest["family"] != family:
        raise ProxyByteError(f"{folder}: holds a {manifest['family']} compressor, not {family}")
    files: dict[str, bytes] = {}
    sums = manifest.get("sha256")
    for name in names:
        if not isinstance(sums, dict) or name not in sums:
            raise ProxyByteError(
                f"{folder / COMPRESSOR_MANIFEST}: lists no checksum of {name}, which a {family} compressor needs"
            )
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise ProxyByteError(f"{folder / name}: cannot be read ({error.strerror})") from None
        if hashlib.sha256(files[name]).hexdigest() != sums[name]:
            raise ProxyByteError(
                f"{folder / name}: {len(files[name])} bytes that do not match the checksum in {COMPRESSOR_MANIFEST}; "
                "the file is truncated or altered: fit or copy the compressor again"
            )
    return manifest, files
