"""A model folder on a device, or one sentence about why not."""

from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

import proxybyte.modeling_proxybyte  # noqa: F401  (makes the Auto classes know our models)
from proxybyte.checksums import WEIGHTS, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.eval.bpb import embedding_rows
from proxybyte.eval.scoring import gives_target_nll
from proxybyte.faults import loading
from proxybyte.symbols import NUM_RAW_SYMBOLS

BROKEN = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
"""What Transformers raises for a folder that is no model, or a broken one."""


class ModelKind(StrEnum):
    """What a model reads."""

    BYTES = "bytes"
    TOKENS = "tokens"


def load_model(folder: Path, device: str, dtype: str) -> Any:
    """Load a causal model in evaluation mode.

    Args:
        folder: a folder with ``config.json`` and safetensors weights.
        device: a device of PyTorch, or ``"auto"``: an accelerator if there is one.
        dtype: ``"auto"`` (as saved), ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Raises:
        ProxyByteError: if the folder is no model, or a file in it is broken.
    """
    if not (folder / "config.json").is_file():
        inside = (folder / "model" / "config.json").is_file()
        advice = f"give {folder / 'model'}" if inside else "give an export, or a run's model/ or checkpoints/STEP/model"
        raise ProxyByteError(f"{folder} is no model folder (it has no config.json): {advice}")
    verify_folder(folder, WEIGHTS)
    with loading(folder, "model"):
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    return model.to(pick_device(device)).eval()


def cannot_load(folder: Path | str, error: Exception) -> ProxyByteError:
    """One sentence for one of the errors in ``BROKEN``."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ProxyByteError(f"cannot load the model in {folder}: {reason}")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a tokenizer model.

    Raises:
        ProxyByteError: if the folder has none that loads.
    """
    with loading(folder, "tokenizer"):
        return AutoTokenizer.from_pretrained(folder)


def model_kind(model: Any) -> ModelKind:
    """Bytes for ours and for its native export, tokens for any other model."""
    is_ours = gives_target_nll(model) or embedding_rows(model) == NUM_RAW_SYMBOLS
    return ModelKind.BYTES if is_ours else ModelKind.TOKENS


def pick_device(device: str) -> torch.device:
    """``device`` itself, or for ``"auto"`` the accelerator if there is one."""
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ProxyByteError(f"--device {device}: {str(error).splitlines()[0]}") from error
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")
