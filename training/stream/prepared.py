"""Random access to a prepared split at memory speed: NumPy views on the Arrow buffers, no copies, no Python objects.

The columns are described in docs/architecture.md ("Prepared folder"). Reading a row through ``datasets`` costs about
a tenth of a millisecond; a view on the mapped buffer costs about a microsecond, and a training row needs several.
"""

import json
import os
from bisect import bisect_right
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from proxybyte.artefacts import PREPARED_MANIFEST, Column, Split, check_split
from proxybyte.checksums import verify_folder
from proxybyte.errors import ProxyByteError

from ..prepare.columns import NUM_BORDERS
from ..prepare.manifest import read_manifest


class _FlatColumn:
    """Views into one variable-length column (``large_binary`` or ``large_list``), chunk by chunk."""

    def __init__(self, column: pa.ChunkedArray, dtype: np.dtype):
        self._first_row = [0]
        self._offsets: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        for chunk in column.chunks:
            if len(chunk) == 0:
                continue
            offsets, values = _buffers(chunk, dtype)
            self._offsets.append(offsets)
            self._values.append(values)
            self._first_row.append(self._first_row[-1] + len(chunk))

    def __getitem__(self, where: tuple[int, int, int]) -> np.ndarray:
        """Elements ``begin .. end`` of the value in ``row``."""
        row, begin, end = where
        chunk = bisect_right(self._first_row, row) - 1
        start = int(self._offsets[chunk][row - self._first_row[chunk]])
        return self._values[chunk][start + begin : start + end]


def _buffers(chunk: pa.Array, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (one a row, and one more) and flat values of an Arrow array, as views."""
    offset_type = np.int64 if pa.types.is_large_binary(chunk.type) or pa.types.is_large_list(chunk.type) else np.int32
    buffers = chunk.buffers()
    offsets = np.frombuffer(buffers[1], dtype=offset_type)[chunk.offset : chunk.offset + len(chunk) + 1]
    data, shift = buffers[-1], 0
    if hasattr(chunk, "values"):
        shift = chunk.values.offset
    values = np.frombuffer(data, dtype=dtype) if data is not None else np.empty(0, dtype)
    return offsets, values[shift:]


class PreparedSplit:
    """One split of a prepared folder, opened by memory map.

    Attributes:
        folder: where it was opened.
        n_bytes: bytes of each document, shape ``(documents,)``, uint32.
        n_symbols: compressed symbols of each document, int32; ``-1`` where the document is raw in every plan.
    """

    def __init__(self, folder: str | Path):
        """Open ``folder`` (``PREPARED/train`` or ``PREPARED/validation``).

        Raises:
            ProxyByteError: if it is absent, a shard is missing or unreadable, or a column is absent.
        """
        self.folder = Path(folder)
        table = _open_table(self.folder)
        try:
            self.n_bytes = _numbers(table, Column.N_BYTES, np.uint32)
            self.n_symbols = _numbers(table, Column.N_SYMBOLS, np.int32)
            self._table = table
            self._text = _FlatColumn(table[Column.TEXT], np.dtype(np.uint8))
            symbol_type = table.schema.field(Column.SYMBOLS).type.value_type
            self._symbols = _FlatColumn(table[Column.SYMBOLS], np.dtype(symbol_type.to_pandas_dtype()))
        except (AttributeError, IndexError, NotImplementedError, TypeError, ValueError, pa.ArrowException) as error:
            raise ProxyByteError(f"a column of prepared split {self.folder} is damaged: prepare it again") from error

    def __len__(self) -> int:
        return len(self.n_bytes)

    @cached_property
    def borders(self) -> np.ndarray:
        """Byte offset at each sixteenth of a document's symbols, shape ``(documents, 15)``, uint32."""
        parts = [
            np.frombuffer(chunk.values.buffers()[1], dtype=np.uint32)[
                (chunk.offset + chunk.values.offset) * NUM_BORDERS :
            ][: len(chunk) * NUM_BORDERS]
            for chunk in self._table[Column.BORDERS].chunks
        ]
        return np.concatenate(parts).reshape(-1, NUM_BORDERS) if parts else np.empty((0, NUM_BORDERS), np.uint32)

    def raw(self, document: int, begin: int, end: int) -> np.ndarray:
        """Bytes ``begin .. end`` of ``document``: a uint8 view of shape ``(end - begin,)``."""
        return self._text[document, begin, end]

    def compressed(self, document: int, begin: int, end: int) -> np.ndarray:
        """Codes ``begin .. end`` of ``document``, numbered from 0: an unsigned view of shape ``(end - begin,)``."""
        return self._symbols[document, begin, end]

    def source(self, document: int) -> str:
        """Where ``document`` came from, for messages."""
        return str(self._table[Column.SOURCE][document].as_py())


def _open_table(folder: Path) -> pa.Table:
    check_split(folder)
    _check_written(folder)
    try:
        table = datasets.load_from_disk(str(folder)).data.table
    except Exception as error:  # a damaged file makes the libraries below fail in any way
        reason = _damaged_file(folder) or (str(error).splitlines() or [type(error).__name__])[0]
        raise ProxyByteError(f"prepared split {folder} cannot be read ({reason}): prepare it again") from error
    missing = {column.value for column in Column} - set(table.column_names)
    if missing:
        raise ProxyByteError(f"prepared split {folder} lacks the column(s) {sorted(missing)}: prepare it again")
    said = _documents_of(folder)
    if said not in (None, table.num_rows):
        raise ProxyByteError(
            f"prepared split {folder} holds {table.num_rows} documents, {PREPARED_MANIFEST} says {said}: "
            "prepare it again"
        )
    if table.num_rows == 0:
        raise ProxyByteError(f"prepared split {folder} holds no document: give 'proxybyte prepare' a larger corpus")
    return table


def _damaged_file(folder: Path) -> str | None:
    """The first file of a split that is not what it should be, and what is wrong with it."""
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.arrow")]):
        try:
            if path.suffix == ".json":
                json.loads(path.read_bytes())
            else:
                with pa.memory_map(str(path)) as source:
                    pa.ipc.open_stream(source).read_all()
        except (OSError, ValueError, RecursionError) as error:
            return f"{path.name} is damaged: {(str(error).splitlines() or [type(error).__name__])[0]}"
    return None


def _check_written(folder: Path) -> None:
    """Compare the files with their sums; one process of a machine does it for all."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        verify_folder(folder)


def _documents_of(folder: Path) -> int | None:
    """Documents in a split by the manifest of the prepared folder that it lies in, if it does."""
    if not (folder.parent / PREPARED_MANIFEST).is_file() or folder.name not in list(Split):
        return None
    return int(getattr(read_manifest(folder.parent), folder.name).documents)


def _numbers(table: pa.Table, name: str, dtype: type) -> np.ndarray:
    return np.concatenate([chunk.to_numpy(zero_copy_only=False).astype(dtype) for chunk in table[name].chunks])
