"""What lies in a folder of ours, or in a model on the Hub: its kind, and what each of its own files says."""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from proxybyte.artefacts import (
    ADAPTER_CONFIG,
    CHECKPOINTS_FOLDER,
    COMPRESSOR_MANIFEST,
    CONFIG_FILE,
    CORPUS_REPORT,
    HEADS_FILE,
    PREPARED_MANIFEST,
    find_compressor,
    find_model,
)
from proxybyte.checksums import file_digest, files_in, read_record
from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.card_facts import EXPORT_REPORT, read_facts
from proxybyte.progress import Progress
from proxybyte.provenance import Provenance, read_provenance
from proxybyte.symbols import NUM_RAW_SYMBOLS

_LONGEST = 24
"""Entries of a list or table that is shown."""


class ArtefactKind(StrEnum):
    """What a folder is."""

    CORPUS = "corpus"
    PREPARED = "prepared data"
    COMPRESSOR = "compressor"
    ADAPTER = "adapter"
    RUN = "run"
    CHECKPOINT = "checkpoint of a run"
    EXPORT = "export"
    BYTEIFIED = "byteified model, not trained since"
    MODEL = "model"


class Sum(StrEnum):
    """A file beside ``SHA256SUMS``."""

    SAME = "as written"
    CHANGED = "CHANGED since it was written"
    UNKNOWN = "not recorded"


@dataclass(frozen=True)
class FileFacts:
    """A file.

    Attributes:
        size: bytes.
        sha256: of its content.
        sum: whether that is what the command that wrote it recorded.
    """

    size: int
    sha256: str
    sum: Sum


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        kind: of the folder.
        facts: by section, then by name; JSON values.
        files: by path in the folder.
    """

    kind: ArtefactKind
    facts: dict[str, dict[str, Any]]
    files: dict[str, FileFacts]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        files = {
            name: {"bytes": file.size, "sha256": file.sha256, "state": file.sum} for name, file in self.files.items()
        }
        return {"kind": self.kind, **self.facts, "files": files}


def inspect_artefact(named: str) -> Inspection:
    """Look at a folder, or at a model on the Hub.

    Args:
        named: a folder of any kind in :class:`ArtefactKind`, or a name on the Hub.

    Raises:
        ProxyByteError: if there is nothing of the kind, or a file of it is damaged.
    """
    folder = Path(named)
    if not folder.is_dir():
        folder = find_model(named).model
    for kind, marker in _DATA.items():
        if (folder / marker).is_file():
            return Inspection(kind, {str(kind): _trimmed(_read(folder / marker))}, _files(folder))
    if (folder / EXPORT_REPORT).is_file() and not (folder / CONFIG_FILE).is_file():  # GGUF
        export = {"export": vars(read_facts(folder))}
        return Inspection(ArtefactKind.EXPORT, export | _origin(read_provenance(folder)), _files(folder))
    model = find_model(folder).model
    made = read_provenance(model)
    facts = _model(model) | _origin(made)
    if (compressor := find_compressor(model)) is not None:
        facts["compressor"] = _trimmed(_read(compressor / COMPRESSOR_MANIFEST))
    return Inspection(_kind_of(folder, model, made), facts, _files(folder))


_DATA = {
    ArtefactKind.CORPUS: CORPUS_REPORT,
    ArtefactKind.PREPARED: PREPARED_MANIFEST,
    ArtefactKind.COMPRESSOR: COMPRESSOR_MANIFEST,
    ArtefactKind.ADAPTER: ADAPTER_CONFIG,
}


def _kind_of(folder: Path, model: Path, made: Provenance) -> ArtefactKind:
    if (folder / CHECKPOINTS_FOLDER).is_dir():
        return ArtefactKind.RUN
    if folder.resolve().parent.name == CHECKPOINTS_FOLDER:
        return ArtefactKind.CHECKPOINT
    if (model / EXPORT_REPORT).is_file():
        return ArtefactKind.EXPORT
    return ArtefactKind.BYTEIFIED if made.byteified is not None and not made.training else ArtefactKind.MODEL


def _model(folder: Path) -> dict[str, dict[str, Any]]:
    """Shape, heads and weights; of a tokenizer model what its configuration says of them."""
    from proxybyte.hub_configs.model_table import read_shape, shape_rows

    facts: dict[str, dict[str, Any]] = {}
    settings = _read(folder / CONFIG_FILE)
    if settings.get("model_type") == "proxybyte" or settings.get("vocab_size") == NUM_RAW_SYMBOLS:
        config = read_shape(folder)
        facts["model"] = {name.strip(): value for name, value in shape_rows(config)}
        facts["heads"] = {
            "over all symbols": config.num_pred_heads,
            "over bytes, after those": config.num_raw_pred_heads,
            "documents open with": str(config.document_opening),
            "suffix rows": config.suffix_rows is not None,
        }
        if (folder / HEADS_FILE).is_file():
            facts["heads"]["beside it, for drafts"] = _tensors([folder / HEADS_FILE])["numbers"] // (
                NUM_RAW_SYMBOLS * config.hidden_size
            )
    else:
        facts["model"] = {
            "backbone": settings.get("model_type"),
            "symbols": settings.get("vocab_size"),
            "reads": "tokens",
        }
    facts["weights"] = _tensors(sorted(folder.glob("model*.safetensors")))
    if (folder / EXPORT_REPORT).is_file():
        facts["export"] = vars(read_facts(folder))
    return facts


def _tensors(paths: list[Path]) -> dict[str, Any]:
    """Counts over safetensors files."""
    from safetensors import SafetensorError, safe_open

    count = numbers = 0
    kinds: set[str] = set()
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    part = file.get_slice(name)
                    size = 1
                    for length in part.get_shape():
                        size *= length
                    count, numbers, kinds = count + 1, numbers + size, kinds | {part.get_dtype()}
        except SafetensorError as error:
            raise ProxyByteError(f"{path} is damaged: make or copy its folder again ({error})") from error
    return {"files": len(paths), "tensors": count, "numbers": numbers, "types": sorted(kinds)}


def _origin(made: Provenance) -> dict[str, dict[str, Any]]:
    """Base and runs."""
    facts: dict[str, dict[str, Any]] = {}
    if made.byteified is not None:
        facts["byteified from"] = {name: value for name, value in made.byteified.items() if name != "specials"}
    for number, run in enumerate(made.training, 1):
        shown: dict[str, Any] = {
            "steps": run.steps,
            "symbols of rows": run.symbols,
            "training FLOPs": run.flops,
            "trained": run.weights,
            "seed": run.seed,
        }
        shown |= {name: run.seen[name] for name in sorted(run.seen) if name.endswith(("/bytes", "/share_of_bytes"))}
        shown |= dict(run.validation)
        if run.codes is not None:
            shown |= {f"compressor {name}": value for name, value in vars(run.codes).items()}
        shown |= {f"data {name}": list(value) for name, value in vars(run.data).items() if value}
        facts[f"training run {number}"] = shown
    return facts


def _files(folder: Path) -> dict[str, FileFacts]:
    """All of a folder's files, hashed; beside the nearest record of each."""
    records = {home: read_record(home) for home in (folder, *(each for each in folder.rglob("*") if each.is_dir()))}
    found = {}
    for name, path in Progress(sorted(files_in(folder).items()), desc="hashing", unit="file", delay=2):
        if path.is_dir():
            continue
        digest = file_digest(path)
        state = Sum.UNKNOWN
        for home in (each for each in path.parents if records.get(each) is not None):
            wanted = records[home].sums.get(path.relative_to(home).as_posix())  # type: ignore[union-attr]
            if wanted is not None:
                state = Sum.SAME if wanted == digest else Sum.CHANGED
                break
        found[name] = FileFacts(path.stat().st_size, digest, state)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ProxyByteError(f"{path} cannot be read: make or copy its folder again ({error})") from error


def _trimmed(content: dict[str, Any]) -> dict[str, Any]:
    """Without tables that are as long as the data."""
    return {
        name: {inner: each for inner, each in value.items() if _short(each)} if isinstance(value, dict) else value
        for name, value in content.items()
        if _short(value)
    }


def _short(value: Any) -> bool:
    return not isinstance(value, dict | list) or len(value) <= _LONGEST
