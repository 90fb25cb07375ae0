"""Find and load the model that a person means by a path: a model folder, or a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxybyte.checksums import WEIGHTS, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.faults import loading

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CONFIG_FILE = "config.json"
COMPRESSOR_FOLDER = "compressor"
CHAT_FOLDER = "chat"
"""The chat kind of tokenizer, in a model folder that was trained on chats or comes of such a base."""
COMPRESSOR_MANIFEST = "compressor.json"


@dataclass(frozen=True)
class ModelFolder:
    """Where a model lies.

    Attributes:
        model: folder that ``from_pretrained`` loads.
        compressor: folder of the compressor that it was trained with, if one is beside it or in it.
    """

    model: Path
    compressor: Path | None


def find_model(path: Path) -> ModelFolder:
    """The model in ``path``: itself, its ``model/``, or its newest checkpoint's ``model/``, in this order.

    Raises:
        ProxyByteError: if there is none.
    """
    if not path.is_dir():
        raise ProxyByteError(f"{path} is no folder: give a run or a model folder")
    path = path.resolve()
    checkpoints = sorted(path.glob("checkpoints/step-*[0-9]"), reverse=True)
    for folder in [path, path / "model", *(checkpoint / "model" for checkpoint in checkpoints)]:
        if (folder / CONFIG_FILE).is_file():
            return ModelFolder(folder, _compressor_of(folder))
    raise ProxyByteError(
        f"{path} holds no model: there is no {CONFIG_FILE} in it, in model/ or in checkpoints/*/model/"
    )


def _compressor_of(model: Path) -> Path | None:
    """The compressor in a model folder, beside it, or in the run whose checkpoint the folder is part of."""
    homes = [model, model.parent]
    if model.parent.parent.name == "checkpoints":
        homes.append(model.parents[2])
    found = (home / COMPRESSOR_FOLDER for home in homes)
    return next((folder for folder in found if (folder / COMPRESSOR_MANIFEST).is_file()), None)


def load_config(folder: Path) -> "PreTrainedConfig":
    """Configuration in a model folder.

    Raises:
        ProxyByteError: if it cannot be read.
    """
    from transformers import AutoConfig

    import proxybyte.modeling_proxybyte  # noqa: F401 (registers our model type)

    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as error:  # whatever a damaged or foreign file provokes
        raise ProxyByteError(f"{folder / CONFIG_FILE} cannot be read: {_first_line(error)}") from error


def context_length(config: "PreTrainedConfig") -> int | None:
    """Symbols that the model was made for, ``None`` where its configuration does not say."""
    return getattr(config, "max_position_embeddings", None)


def load_causal_model(folder: Path) -> "PreTrainedModel":
    """Model in a folder, ours or any of Transformers, in evaluation mode and the dtype it was saved in.

    Raises:
        ProxyByteError: if a weight is absent, odd or unreadable.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(folder)
    verify_folder(folder, WEIGHTS)
    with loading(folder, "weights"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, use_safetensors=True, output_loading_info=True
        )
    model, report = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            name = sorted(map(str, report[kind]))[0]
            raise ProxyByteError(
                f"the weights in {folder} do not fit its {CONFIG_FILE}: {kind.replace('_', ' ')} {name}"
            )
    return model.eval()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
