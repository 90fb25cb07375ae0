"""Every family of compressors by name. Modules load on first use, so that listing them imports no torch."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxybyte.artefacts import COMPRESSOR_MANIFEST, TOKENIZER_FILE, find_compressor
from proxybyte.checksums import verify_folder
from proxybyte.errors import ProxyByteError, nearest
from proxybyte.faults import loading

from .fitting import Fitter
from .protocol import Compressor, read_manifest


@dataclass(frozen=True)
class Family:
    """Where one family lives.

    Attributes:
        module: module of this package that holds the class.
        cls: the class, which follows :class:`Compressor`.
        names: names under which an instance exists without a folder; the class then has ``from_name(name)``.
        fitter: module of this package that holds ``FITTER`` (:class:`~.fitting.Fitter`), the options and the work of
            ``proxybyte compressor fit FAMILY``; None where there is nothing to fit.
    """

    module: str
    cls: str
    names: tuple[str, ...] = ()
    fitter: str | None = None

    def load_class(self) -> Any:
        """Import and return the class."""
        return getattr(importlib.import_module(f".{self.module}", __package__), self.cls)

    def load_fitter(self) -> Fitter:
        """Import and return the fitter of a family that has one."""
        return importlib.import_module(f".{self.fitter}", __package__).FITTER


FAMILIES: dict[str, Family] = {
    "bits": Family(
        "regroup", "RegroupCompressor", names=("bits-1", "bits-2", "bits-4", "bits-8", "bits-16", "bits-16-published")
    ),
    "bpe": Family("bpe", "BpeCompressor", fitter="bpe_fit"),
    "codebook": Family("codebook", "CodebookCompressor"),
    "gzip": Family("gzip", "GzipCompressor", names=("gzip", "gzip-published")),
    "neural": Family("neural", "NeuralCompressor", fitter="neural_fit"),
    "token-bytes": Family("token_bytes", "TokenBytesCompressor", fitter="token_bytes_fit"),
}
"""To add a family, add its line."""

TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer.model", "vocab.json", "tokenizer_config.json")


def short_names() -> list[str]:
    """Names that :func:`load_compressor` takes without a folder."""
    return [name for family in FAMILIES.values() for name in family.names]


def load_compressor(name_or_folder: str | Path) -> Compressor:
    """A compressor by short name (``gzip``, ``bits-16``), by its folder, or by a Hugging Face tokenizer.

    Args:
        name_or_folder: a short name; a folder with ``compressor.json``; a model or tokenizer folder with
            ``tokenizer.json``; the path of a ``tokenizer.json`` itself; or a run, its ``model/`` or an export that
            carries its compressor.

    Raises:
        ProxyByteError: if there is no such name or path (the nearest name is given), or the folder is damaged.
    """
    text, path = str(name_or_folder), Path(name_or_folder)
    for family in FAMILIES.values():
        if text in family.names:
            return family.load_class().from_name(text)
    if path.is_file() and path.suffix == ".json" and path.name != COMPRESSOR_MANIFEST:
        return FAMILIES["bpe"].load_class().from_tokenizer(path)
    if not path.is_dir():
        raise ProxyByteError(_unknown(text))
    if not (path / COMPRESSOR_MANIFEST).exists():
        path = find_compressor(path) or path
    if (path / COMPRESSOR_MANIFEST).exists():
        key = read_manifest(path)["family"]
        if key not in FAMILIES:
            raise ProxyByteError(
                f"{path / COMPRESSOR_MANIFEST}: unknown family {key!r}; {_nearest(key, list(FAMILIES))}"
            )
        verify_folder(path)
        with loading(path, "compressor"):
            return FAMILIES[key].load_class().load(path)
    if any((path / name).exists() for name in TOKENIZER_FILES):
        return FAMILIES["bpe"].load_class().from_tokenizer(path)
    raise ProxyByteError(f"{path}: holds neither {COMPRESSOR_MANIFEST} (a compressor) nor tokenizer.json (a tokenizer)")


def _unknown(text: str) -> str:
    if text in FAMILIES:
        return f"{text!r} is a family, not a compressor: give the folder that 'proxybyte compressor fit {text}' wrote"
    return f"no compressor {text!r}: there is no such folder, and {_nearest(text, short_names())}"


def _nearest(text: str, names: list[str]) -> str:
    close = nearest(text, names)
    return f"the nearest name is {close!r}" if close else f"the names are {', '.join(names)}"
