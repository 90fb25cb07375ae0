"""Compressor folders on disk: some files, and ``compressor.json`` written last, which holds their checksums.

A folder whose writing was cut short, whose files were truncated, or that belongs to another family is refused by
name. Every family saves and loads through these two functions.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proxybyte.errors import ProxyByteError
from proxybyte.folders import whole_folder, write_bytes, write_json

from .protocol import MANIFEST


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
        write_json(partial / MANIFEST, {"family": family, **fields, "sha256": sums})


def output_kind(family: str) -> str:
    """The kind of output (``proxybyte.folders``) that a compressor of ``family`` is."""
    return f"{family} compressor"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the compressor in ``folder``.

    Raises:
        ProxyByteError: if there is none, or it is no manifest.
    """
    path = Path(folder) / MANIFEST
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
            raise ProxyByteError(f"{folder / MANIFEST}: lists no checksum of {name}, which a {family} compressor needs")
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise ProxyByteError(f"{folder / name}: cannot be read ({error.strerror})") from None
        if hashlib.sha256(files[name]).hexdigest() != sums[name]:
            raise ProxyByteError(
                f"{folder / name}: {len(files[name])} bytes that do not match the checksum in {MANIFEST}; "
                "the file is truncated or altered: fit or copy the compressor again"
            )
    return manifest, files
