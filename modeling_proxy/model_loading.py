"""Load what lies in a model folder, or say in one sentence why not. No model needs it, so it stays at home."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artefacts import CHAT_FOLDER, CONFIG_FILE, TOKENIZER_FILE, is_hub_name
from .checksums import WEIGHTS, verify_folder
from .errors import ProxyByteError
from .faults import loading

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""For every ``from_pretrained`` of ours: code that lies beside a configuration is not run, and nobody is asked."""
SAFELY: dict[str, Any] = NO_CODE | {"use_safetensors": True}
"""For every one that reads weights too: a pickle is not opened, wherever the safetensors are missing."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def check_remote_code(named: str, revision: str | None) -> None:
    """Refuse to run code from the Hub that its owner may change between two runs.

    Args:
        named: of the model whose code was asked for.
        revision: that was asked for.

    Raises:
        ProxyByteError: if ``named`` lies on the Hub and ``revision`` is no commit.
    """
    if is_hub_name(named) and not _COMMIT.fullmatch(revision or ""):
        raise ProxyByteError(
            f"trust_remote_code runs the code of {named} as it is today: read it, and name the commit that you have "
            "read with revision=, 40 hexadecimal digits"
        )


def load_config(folder: Path) -> "PreTrainedConfig":
    """Configuration in a model folder.

    Raises:
        ProxyByteError: if there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    from . import modeling_proxybyte  # noqa: F401 (registers our model type)

    if not (folder / CONFIG_FILE).is_file():
        raise ProxyByteError(f"{folder} is no model folder: it has no {CONFIG_FILE}")
    with loading(folder, "configuration"):
        return AutoConfig.from_pretrained(folder, **NO_CODE)


def load_causal_model(folder: Path, dtype: str = "auto") -> "PreTrainedModel":
    """Model in a folder, ours or any of Transformers, in evaluation mode.

    Args:
        folder: with ``config.json`` and safetensors weights.
        dtype: ``"auto"`` (as saved), ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Raises:
        ProxyByteError: if a weight is absent, odd, of another shape or unreadable.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = load_config(folder)
    verify_folder(folder, WEIGHTS)
    with loading(folder, "weights"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True, **SAFELY
        )
    model, report = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            name = sorted(map(str, report[kind]))[0]
            raise ProxyByteError(
                f"the weights in {folder} do not fit its {CONFIG_FILE}: {kind.replace('_', ' ')} {name}"
            )
    return model.eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model folder.

    Raises:
        ProxyByteError: if it has none that loads.
    """
    from transformers import AutoTokenizer

    with loading(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE)
        tokenizer("a")  # a setting of the wrong type is met here, and not in the midst of the work
        return tokenizer


def chat_tokenizer_in(folder: Path) -> "PreTrainedTokenizerFast | None":
    """The chat kind of byte tokenizer that a model folder carries in ``chat/``, ``None`` where there is none.

    Raises:
        ProxyByteError: if it does not load.
    """
    place = folder / CHAT_FOLDER
    return load_tokenizer(place) if (place / TOKENIZER_FILE).is_file() else None


def context_length(config: "PreTrainedConfig") -> int | None:
    """Symbols that the model was made for, ``None`` where its configuration does not say."""
    return getattr(config, "max_position_embeddings", None)


def pick_device(name: str | None) -> "torch.device":
    """A device of PyTorch by name; for ``"auto"`` or ``None`` the accelerator if there is one, else the CPU.

    Raises:
        ProxyByteError: if there is no such device here.
    """
    import torch

    if name in (None, "auto"):
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ProxyByteError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
