"""Names of what corpus, prepared, run, model and export folders hold, and where in them a model and compressor lie.

Every room writes and looks for these names through here. No model needs it, so it does not travel to the Hub.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .errors import ProxyByteError
from .numbers import HUB_NAME

CORPUS_REPORT = "corpus.json"
"""In a corpus folder, beside its shards."""
PREPARED_MANIFEST = "prepared.json"
"""In a prepared folder, beside a folder for each split and the compressor's."""
COMPRESSOR_FOLDER = "compressor"
"""In a prepared folder, a run and a full export: the compressor whose codes the symbols are."""
COMPRESSOR_MANIFEST = "compressor.json"
"""In a compressor's folder."""
MODEL_FOLDER = "model"
"""In a run and in each of its checkpoints: what ``from_pretrained`` loads."""
CHECKPOINTS_FOLDER = "checkpoints"
"""In a run: ``step-00000100/`` and so on."""
WEIGHTS_FOLDER = "weights"
"""In a checkpoint that several processes wrote, each its part, in the place of ``model/``."""
CHAT_FOLDER = "chat"
"""In a model folder: the chat kind of tokenizer. The plain one beside it reads every text as text, so has no template.
An export for chats carries the chat kind itself."""
CONFIG_FILE = "config.json"
"""What makes a folder a model folder."""
TOKENIZER_FILE = "tokenizer.json"
HEADS_FILE = "draft_heads.safetensors"
"""Beside a native model: the heads that predict further, for its ``custom_generate``."""
ADAPTER_CONFIG = "adapter_config.json"
"""What makes a folder the folder of an adapter of PEFT's."""
ADAPTER_FILE = "adapter_model.safetensors"
"""Its weights."""


BOX = "box"
"""Names the small model that comes with the package wherever a model is asked for, unless a folder is called so."""
BOX_FOLDER = Path(__file__).parent / BOX
"""Where it lies; docs/hub.md says how it was made."""
MODEL_HELP = (
    f"a run, its {MODEL_FOLDER}/, a checkpoint, an export, a name on the Hub (OWNER/MODEL), or "
    f"'{BOX}', which comes along"
)
"""What :func:`find_model` takes, for every command that takes a model."""


class Split(StrEnum):
    """The splits of a corpus and of what is prepared from it."""

    TRAIN = "train"
    VALIDATION = "validation"


class Column(StrEnum):
    """The columns of a prepared split (docs/architecture.md); a corpus shard has ``TEXT`` and ``SOURCE``."""

    TEXT = "text"
    SYMBOLS = "symbols"
    N_BYTES = "n_bytes"
    N_SYMBOLS = "n_symbols"
    BORDERS = "borders"
    SOURCE = "source"


_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "SHA256SUMS", f"{COMPRESSOR_FOLDER}/*")
"""What is fetched of a model on the Hub: no code, which is ours and here already."""


@dataclass(frozen=True)
class ModelFolder:
    """Where a model lies.

    Attributes:
        model: folder that ``from_pretrained`` loads.
        compressor: folder of the compressor that it was trained with, if it carries one.
    """

    model: Path
    compressor: Path | None


def find_model(named: str | Path) -> ModelFolder:
    """The model that a person means: in a folder itself, its ``model/``, its newest checkpoint, or on the Hub.

    Args:
        named: a run, its ``model/``, a checkpoint or its ``model/``, an export, a name on the Hub (OWNER/MODEL), or
            ``box``.

    Raises:
        ProxyByteError: if there is none.
    """
    if str(named) == BOX and not Path(named).exists():
        return ModelFolder(BOX_FOLDER, None)
    path = Path(named) if Path(named).is_dir() else _fetched(str(named))
    path = path.resolve()
    checkpoints = sorted(path.glob(f"{CHECKPOINTS_FOLDER}/step-*[0-9]"), reverse=True)
    for home in [path, path / MODEL_FOLDER, *checkpoints]:
        folder = home / MODEL_FOLDER if home in checkpoints else home
        if (home / WEIGHTS_FOLDER).is_dir():
            raise ProxyByteError(
                f"{home} holds weights in shards: make a model of them with 'proxybyte consolidate {home} --out FOLDER'"
            )
        if (folder / CONFIG_FILE).is_file():
            return ModelFolder(folder, find_compressor(folder))
    raise ProxyByteError(
        f"{named} holds no model: it has no {CONFIG_FILE}, nor have {MODEL_FOLDER}/ and "
        f"{CHECKPOINTS_FOLDER}/*/{MODEL_FOLDER}/"
    )


def find_compressor(folder: Path) -> Path | None:
    """The compressor that a run, a model folder or an export carries: in it, or in the run that it is part of."""
    folder = folder.resolve()
    homes = [folder]
    if folder.name == MODEL_FOLDER:
        homes.append(folder.parent)
    if folder.parent.parent.name == CHECKPOINTS_FOLDER:
        homes.append(folder.parents[2])
    found = (home / COMPRESSOR_FOLDER for home in homes)
    return next((place for place in found if (place / COMPRESSOR_MANIFEST).is_file()), None)


def check_split(folder: Path) -> None:
    """Refuse a split of a prepared folder that is not there.

    Raises:
        ProxyByteError: if ``folder`` is none.
    """
    if not folder.is_dir():
        raise ProxyByteError(f"no prepared split at {folder}: make one with 'proxybyte prepare'")


def check_adapter(folder: Path) -> None:
    """Refuse a folder that holds no adapter.

    Raises:
        ProxyByteError: if it has no ``adapter_config.json``, or no weights in safetensors.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise ProxyByteError(f"{folder / ADAPTER_CONFIG} does not exist: give the folder of an adapter")
    if not (folder / ADAPTER_FILE).is_file():
        raise ProxyByteError(
            f"{folder} holds no {ADAPTER_FILE}, and pickled weights are not opened: save the adapter in safetensors"
        )


def find_adapter(named: str, revision: str | None = None) -> Path:
    """The folder of an adapter: one here, or that of an adapter on the Hub as it lies in Hugging Face's cache.

    Raises:
        ProxyByteError: as :func:`check_adapter`, or if there is none.
    """
    folder = Path(named) if Path(named).is_dir() else _fetched(named, (ADAPTER_CONFIG, ADAPTER_FILE), revision)
    check_adapter(folder)
    return folder


def is_hub_name(named: str) -> bool:
    """Tell ``organisation/model`` from a path: nothing of that name is here, nor a folder of its first part."""
    return bool(HUB_NAME.fullmatch(named)) and not Path(named).exists() and not Path(named).parent.is_dir()


def _fetched(named: str, files: Sequence[str] = _HUB_FILES, revision: str | None = None) -> Path:
    """The files of a model on the Hub, as they lie in Hugging Face's cache."""
    if not is_hub_name(named):
        raise ProxyByteError(f"{named} is no folder: give {MODEL_HELP}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(named, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError) as error:  # its own errors, and those of the connection, are kinds of these
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ProxyByteError(f"{named} is no folder here, and cannot be had from the Hub: {reason}") from error
