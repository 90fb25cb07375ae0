"""The demo as a folder that a Space runs: the model, the code that it needs and what that needs, nothing fetched."""

import logging
import re
import shutil
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import proxybyte
from proxybyte.artefacts import COMPRESSOR_FOLDER, ModelFolder, find_model
from proxybyte.errors import ProxyByteError
from proxybyte.folders import locked_output, whole_folder, write_text
from proxybyte.hub_configs.licences import copy_licence
from proxybyte.privacy import private_words_in
from proxybyte.training import Compressor, load_compressor, short_names

log = logging.getLogger(__name__)

KIND = "space"
"""Of output (``proxybyte.folders``)."""
NEEDED = (
    "accelerate",
    "pyarrow",
    "filelock",
    "gradio",
    "huggingface_hub",
    "numpy",
    "pyyaml",
    "rapidfuzz",
    "safetensors",
    "scipy",
    "tiktoken",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
    "zstandard",
)
"""Packages that the page imports; a test runs a Space beside these, and what they need, alone."""
MODEL_FOLDER = "model"
COMPRESSORS_FOLDER = "compressors"
_LEFT_OUT = ("commands", "__pycache__", "*.pyc", "sandbox")
_LEFT_OF_MODEL = ("SHA256SUMS", "optimizer*", "*.lock")


def export_space(source: str | Path, out: Path, compressors: tuple[str, ...] = (), *, force: bool = False) -> Path:
    """Write the folder of a Space for the model in ``source``, whole or not at all.

    Args:
        source: a run, an export, or a name on the Hub.
        out: the folder.
        compressors: short names or folders, shown beside the model's own.
        force: replace what an earlier call wrote there.

    Returns:
        ``out``.

    Raises:
        ProxyByteError: if there is no model, ``out`` exists, or a file would say whose machine this is.
    """
    found = find_model(source)
    name = out.resolve().name
    loaded = [load_compressor(one) for one in compressors]
    with locked_output(out):
        if out.exists() and not force:
            raise ProxyByteError(f"{out} exists: choose another folder or pass --force to replace it")
        with whole_folder(out, KIND) as folder:
            _copy_model(found, folder / MODEL_FOLDER)
            names = tuple(_carried(one, folder) for one in loaded)
            _copy_package(folder / "proxybyte")
            template = files("proxybyte.hub_configs") / "templates" / "space_app.py"
            shown = f"NAME, COMPRESSORS = {name!r}, {names!r}"
            app = template.read_text(encoding="utf-8").replace('NAME, COMPRESSORS = "", ()', shown)
            write_text(folder / "app.py", app)
            write_text(folder / "requirements.txt", "".join(f"{line}\n" for line in requirements()))
            card = (files("proxybyte.hub_configs") / "templates" / "space_card.md").read_text(encoding="utf-8")
            version = dict(line.split("==") for line in requirements())["gradio"]
            write_text(folder / "README.md", card.replace("{name}", name).replace("{gradio}", version))
            if told := private_words_in(folder):
                raise ProxyByteError(f"{out} would say whose machine this is ({told[0]}): take that out of the model")
    return out


def requirements() -> list[str]:
    """What the page needs, in the versions that are tested: those of this package's own metadata.

    Raises:
        ProxyByteError: if this package was installed without its metadata.
    """
    pinned = {}
    for line in metadata.requires("proxybyte") or ():
        if match := re.match(r'([\w-]+)==([\w.+]+)\s*;\s*extra == "tested"', line):
            pinned[_plain(match[1])] = f"{match[1]}=={match[2]}"
    if absent := [name for name in NEEDED if _plain(name) not in pinned]:
        raise ProxyByteError(f"no tested version of {absent[0]} is known: install proxybyte again")
    return [pinned[_plain(name)] for name in NEEDED]


def _plain(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _copy_model(found: ModelFolder, folder: Path) -> None:
    shutil.copytree(found.model, folder, ignore=shutil.ignore_patterns(*_LEFT_OF_MODEL), symlinks=False)
    if found.compressor is not None and not (folder / COMPRESSOR_FOLDER).is_dir():
        shutil.copytree(found.compressor, folder / COMPRESSOR_FOLDER)


def _carried(compressor: Compressor, folder: Path) -> str:
    """How ``app.py`` names a compressor: by its short name, or by the folder that it is saved in."""
    if compressor.name in short_names():
        return compressor.name
    compressor.save(folder / COMPRESSORS_FOLDER / compressor.name)
    return f"{COMPRESSORS_FOLDER}/{compressor.name}"


def _copy_package(folder: Path) -> None:
    """This package as one folder, with its licence: a Space has no other way to come by it."""
    ignored = shutil.ignore_patterns(*_LEFT_OUT)
    shutil.copytree(Path(proxybyte.__file__).parent, folder, ignore=ignored)
    for room in ("training", "eval", "hub_configs"):
        home = Path(str(files(f"proxybyte.{room}")))
        if not (folder / room).is_dir():  # installed from a checkout, where rooms lie side by side
            shutil.copytree(home, folder / room, ignore=ignored)
    copy_licence(folder)
