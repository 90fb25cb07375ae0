"""The README.md of an exported folder."""

import json
import math
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from proxybyte.artefacts import COMPRESSOR_FOLDER, COMPRESSOR_MANIFEST
from proxybyte.model_loading import context_length

if TYPE_CHECKING:
    from proxybyte import ProxyByteForCausalLM


def write_model_card(model: "ProxyByteForCausalLM", folder: Path, *, name: str, remote_code: bool, chat: bool) -> None:
    """Write ``folder/README.md`` from ``templates/model_card.md``; states only what the folder itself shows.

    Args:
        model: the model before it was cut.
        folder: what is being exported; its weights are there already.
        name: what the folder will be called.
        remote_code: whether it carries our code files.
        chat: whether the tokenizer is the chat kind.
    """
    template = Template((files("proxybyte.hub_configs") / "templates" / "model_card.md").read_text(encoding="utf-8"))
    text = template.substitute(
        name=name,
        family=model.config.backbone_config.model_type,
        parameters=f"{_exported_parameters(folder) / 1e6:.1f}",
        layers=model.config.num_hidden_layers,
        hidden=model.config.hidden_size,
        context=context_length(model.config) or "unlimited",
        opening=f"`{model.config.document_opening}`",
        ends="`</raw>`, `<eos>`" + (" or `<|eot_id|>`" if chat else ""),
        trust=", trust_remote_code=True" if remote_code else "",
        code="Its class and code files are in this folder." if remote_code else "It needs no remote code.",
        compressor=_compressor(folder),
        drafting=_drafting(model, remote_code),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _exported_parameters(folder: Path) -> int:
    """Numbers in the safetensors files of ``folder``."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                total += math.prod(file.get_slice(name).get_shape())
    return total


def _drafting(model: "ProxyByteForCausalLM", remote_code: bool) -> str:
    """How to use the heads that predict further, where the folder has them."""
    heads = model.config.num_pred_heads - 1 + model.config.num_raw_pred_heads
    if not heads or not remote_code:
        return ""
    several = "s, which predict" if heads > 1 else ", which predicts"
    return (
        f"\nIt has {heads} more head{several} further than the next byte: `model.generate(**prompt, "
        f'draft="heads")`\nwrites up to {heads + 1} bytes a step, and `draft_repeats=True` drafts what the text says '
        "again. The output is that\nof one byte at a time.\n"
    )


def _compressor(folder: Path) -> str:
    manifest = folder / COMPRESSOR_FOLDER / COMPRESSOR_MANIFEST
    if not manifest.is_file():
        return ""
    family = json.loads(manifest.read_bytes()).get("family", "unknown")
    return f"\nThe compressor it was trained with (family `{family}`) is in `{COMPRESSOR_FOLDER}/`.\n"
