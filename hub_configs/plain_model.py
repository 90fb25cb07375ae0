"""The native form of a model: a plain checkpoint of its backbone's family over the 320 raw symbols."""

import copy
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from proxybyte.artefacts import CONFIG_FILE, HEADS_FILE
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_json
from proxybyte.symbols import NUM_RAW_SYMBOLS, DocumentOpening

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

_CUT = ("model.embed_tokens.weight", "lm_head.weight")
_MORE_HEADS = ("pred_heads.weight", "raw_pred_heads.weight")
_SUFFIX_TABLE = ("suffix_rows.edges", "suffix_rows.symbols")
"""Of suffix rows that are faded out: a plain checkpoint has no place for them."""


@dataclass(frozen=True)
class PlainModel:
    """A model of the backbone's own family over the raw symbols.

    Attributes:
        config: its configuration.
        weights: its state dict, without a tied head.
        heads: what heads 1 and up map hidden states to, ``(heads * 320, D)``; ``None`` without.
    """

    config: "PreTrainedConfig"
    weights: dict[str, torch.Tensor]
    heads: torch.Tensor | None

    @classmethod
    def of(cls, model: "PreTrainedModel", folder: Path) -> "PlainModel":
        """The raw rows of ``model``, which is ours, or plain already and has its heads beside it in ``folder``."""
        state = {name: tensor for name, tensor in model.state_dict().items() if name not in _SUFFIX_TABLE}
        config = copy.deepcopy(model.config.backbone_config if model.config.model_type == "proxybyte" else model.config)
        config.vocab_size = NUM_RAW_SYMBOLS
        opening = getattr(model.config, "document_opening", DocumentOpening.RAW)
        if opening != DocumentOpening.RAW:
            # A plain configuration keeps what it does not know, and who scores the folder must know how it opens.
            config.document_opening = opening
        config.dtype = model.dtype
        heads = [
            state.pop(name).unflatten(0, (-1, rows))[:, :NUM_RAW_SYMBOLS].flatten(0, 1)
            for name, rows in ((_MORE_HEADS[0], model.config.vocab_size), (_MORE_HEADS[1], NUM_RAW_SYMBOLS))
            if name in state
        ]
        weights = {name: tensor[:NUM_RAW_SYMBOLS].clone() if name in _CUT else tensor for name, tensor in state.items()}
        if config.tie_word_embeddings:
            weights.pop("lm_head.weight", None)
        if (folder / HEADS_FILE).is_file():
            heads.append(load_file(folder / HEADS_FILE)["heads"])
        return cls(config, weights, torch.cat(heads) if heads else None)


def save_native(made: PlainModel, generation_config: "GenerationConfig", folder: Path, shards: dict[str, int]) -> None:
    """Save under the family's own causal model, with the heads and the code that drafts with them beside it.

    Args:
        made: what to save.
        generation_config: to go with it.
        folder: where to.
        shards: ``max_shard_size`` of ``save_pretrained``, in bytes, or nothing.

    Raises:
        ProxyByteError: if the family's model has other weights.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(made.config)
    known = plain.state_dict().keys() - ({"lm_head.weight"} if made.config.tie_word_embeddings else set())
    if odd := sorted(made.weights.keys() ^ known):
        raise ProxyByteError(
            f"a plain {made.config.model_type!r} cannot hold this model ({odd[0]}): pass --format full"
        )
    plain.generation_config = generation_config
    plain.save_pretrained(folder, state_dict=made.weights, **shards)
    _add_older_names(folder / CONFIG_FILE)
    if made.heads is not None:
        save_file({"heads": made.heads.contiguous()}, folder / HEADS_FILE)
        code = folder / "custom_generate"
        code.mkdir()
        source = files("proxybyte.hub_configs") / "templates" / "draft_heads_generate.py"
        (code / "generate.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")


def _add_older_names(path: Path) -> None:
    """Say in Transformers 4's words too what 5 renamed: 4 would take its own default for a base it does not find."""
    config = json.loads(path.read_bytes())
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        config["rope_scaling"] = None if scaling.get("rope_type") == "default" else scaling
    config["torch_dtype"] = config.get("dtype")
    write_json(path, config)
