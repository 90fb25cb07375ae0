"""From finished shards to a prepared folder: what makes them a dataset, the manifest, and the folder in its place."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxybyte.artefacts import COMPRESSOR_FOLDER, PREPARED_MANIFEST, Split
from proxybyte.checksums import file_digest
from proxybyte.folders import check_output, finish, publish, write_text
from proxybyte.provenance import DataFacts
from proxybyte.training.compressors import load_compressor
from proxybyte.training.compressors.protocol import Compressor
from proxybyte.training.prepare.columns import prepared_features
from proxybyte.training.prepare.manifest import (
    CompressorInfo,
    PreparedManifest,
    SplitTotals,
    add_totals,
    read_manifest,
)
from proxybyte.training.prepare.shard import DONE
from proxybyte.training.prepare.tasks import fingerprint_of_files, folder_digest
from proxybyte.training.remote import fetched
from proxybyte.training.texts.records import MEGABYTE

KIND = "prepared data"
"""Of output (``proxybyte.folders``)."""


@dataclass(frozen=True)
class Carried:
    """A compressor, saved where processes that build the same folder find it.

    Attributes:
        folder: where, named by its content, so that whoever builds the same output with another one has another place.
        info: what the manifest says of it.
    """

    folder: Path
    info: CompressorInfo


def carry_compressor(name_or_folder: str | Path, partial: Path) -> Carried:
    """Load a compressor and save it below ``partial``, the folder that is being built, which is made if absent."""
    compressor = _loaded(name_or_folder)
    for name in (*Split, DONE):
        (partial / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{COMPRESSOR_FOLDER}.", dir=partial) as temporary:
        saved = Path(temporary, COMPRESSOR_FOLDER)
        info = save_compressor(compressor, saved)
        place = partial / f"{COMPRESSOR_FOLDER}-{info.digest}"
        if not (place.is_dir() and folder_digest(place) == info.digest):
            shutil.rmtree(place, ignore_errors=True)
            _put(saved, place)
    return Carried(place, info)


def carried_in(partial: Path, digest: str) -> Carried:
    """The compressor of that digest, carried by another process.

    Raises:
        ProxyByteError: if it is not there, or damaged.
    """
    folder = partial / f"{COMPRESSOR_FOLDER}-{digest}"
    return Carried(folder, _info_of(load_compressor(str(folder)), digest))


def digest_of_compressor(name_or_folder: str | Path) -> str:
    """The digest that the compressor has once it is saved."""
    with tempfile.TemporaryDirectory() as temporary:
        return save_compressor(_loaded(name_or_folder), Path(temporary, COMPRESSOR_FOLDER)).digest


def _loaded(named: str | Path) -> Compressor:
    """A compressor from here, or from beyond this machine."""
    with fetched(named) as here:
        return load_compressor(str(here))


def save_compressor(compressor: Compressor, folder: Path) -> CompressorInfo:
    """Save a compressor into ``folder``, which is new; what a manifest says of it."""
    compressor.save(folder)
    return _info_of(compressor, folder_digest(folder))


def _info_of(compressor: Compressor, digest: str) -> CompressorInfo:
    return CompressorInfo(
        family=compressor.family,
        name=compressor.name,
        num_symbols=compressor.num_symbols,
        lossless=compressor.lossless,
        digest=digest,
    )


def manifest_of(
    carried: Carried, parts: Sequence[tuple[Split, SplitTotals]], verify: str, data: DataFacts, run: "Run"
) -> PreparedManifest:
    """The manifest of the dataset that ``parts``, in their order, make up.

    Args:
        carried: the compressor.
        parts: the totals of every shard, with its split.
        verify: which documents were decoded again.
        data: what is known of the text.
        run: how the run went.
    """
    train, validation = (add_totals([totals for of, totals in parts if of == split]) for split in Split)
    return PreparedManifest(
        compressor=carried.info,
        train=train,
        validation=validation,
        fingerprint=fingerprint_of_files([*train.files, *validation.files], carried.info.digest),
        verify=verify,
        ratio=add_totals([train, validation]).ratio,
        workers=run.workers,
        seconds=run.seconds,
        mb_per_s=run.encoded / MEGABYTE / run.seconds,
        data=data,
    )


@dataclass(frozen=True)
class Run:
    """How a run went: its processes, its wall time, and the bytes of text that it encoded itself."""

    workers: int
    seconds: float
    encoded: int


def publish_prepared(partial: Path, manifest: PreparedManifest, output: Path) -> None:
    """Put ``partial`` together and in its place. From when its manifest is there on, it is complete without reports."""
    if not (partial / PREPARED_MANIFEST).is_file():
        complete(partial, manifest)
    keep = {*Split, COMPRESSOR_FOLDER, PREPARED_MANIFEST}
    for path in partial.iterdir():
        if path.is_dir() and path.name not in keep:
            shutil.rmtree(path)
        elif path.name not in keep:
            path.unlink()
    finish(partial, KIND, sums=manifest.total.digests, unsummed=(PREPARED_MANIFEST,))
    check_output(output, KIND)
    publish(partial, output)


def already_prepared(folder: Path, fingerprint: str) -> PreparedManifest | None:
    """The manifest of ``folder`` if it is this very dataset and its shards hold what was written."""
    if not (folder / PREPARED_MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    if manifest.fingerprint != fingerprint or not manifest.total.digests:
        return None
    return manifest if holds(folder, manifest.total.digests) else None


def holds(folder: Path, digests: dict[str, str]) -> bool:
    """Whether the files of ``folder`` that have ``digests`` are there and hold what was written."""
    try:
        return all(file_digest(folder / name) == digest for name, digest in digests.items())
    except OSError:
        return False


def complete(partial: Path, manifest: PreparedManifest) -> None:
    """Write what makes each split a folder for ``datasets.load_from_disk``, and the manifest; drop an empty split."""
    from datasets import DatasetInfo

    features = prepared_features(manifest.compressor.num_symbols)
    for split, totals in ((Split.TRAIN, manifest.train), (Split.VALIDATION, manifest.validation)):
        folder = partial / split
        names = [Path(name).name for name in totals.files]
        if not names:  # datasets cannot read a folder without a shard
            shutil.rmtree(folder, ignore_errors=True)
            continue
        DatasetInfo(features=features).write_to_directory(str(folder))
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": f"{manifest.fingerprint}-{split}",
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        write_text(folder / "state.json", json.dumps(state, indent=2, sort_keys=True))
    shutil.rmtree(partial / COMPRESSOR_FOLDER, ignore_errors=True)
    (partial / f"{COMPRESSOR_FOLDER}-{manifest.compressor.digest}").rename(partial / COMPRESSOR_FOLDER)
    write_text(partial / PREPARED_MANIFEST, manifest.to_json())


def _put(saved: Path, place: Path) -> None:
    """Move a folder to its place, unless another process has just put its equal there."""
    try:
        saved.rename(place)
    except OSError:
        if not place.is_dir():
            raise
