"""``export.json``: what an exported folder is, for its card now and for the one that 'proxybyte push' writes later."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from proxybyte.artefacts import COMPRESSOR_FOLDER, COMPRESSOR_MANIFEST, HEADS_FILE
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_text
from proxybyte.model_loading import context_length
from proxybyte.symbols import NUM_RAW_SYMBOLS, special_spelling

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

EXPORT_REPORT = "export.json"
OLDEST_NATIVE = "4.57"
"""Version of Transformers from which a native export is tested; the full one's is its code's."""


@dataclass(frozen=True)
class ExportFacts:
    """What the model and the folder show.

    Attributes:
        form: ``native``, ``full`` or ``gguf``.
        family: of the decoder, as Transformers calls it.
        parameters: numbers in the folder's weights.
        layers, hidden: of the decoder.
        context: symbols; ``None`` where the configuration does not say.
        opening: specials before a text, as they are spelled.
        chat: whether the tokenizer is the chat kind.
        heads: how many heads predict further than the next symbol.
        transformers: its oldest version that the form is made for; empty for GGUF.
        code: whether it carries Python files of ours.
        compressor: family of the compressor in the folder; ``None`` without one.
    """

    form: str
    family: str
    parameters: int
    layers: int
    hidden: int
    context: int | None
    opening: str
    chat: bool
    heads: int
    transformers: str
    code: bool
    compressor: str | None

    @classmethod
    def of(cls, model: "PreTrainedModel", folder: Path, form: str, chat: bool, opening: Sequence[int]) -> "ExportFacts":
        """Of what is being exported.

        Args:
            model: before it was cut.
            folder: with weights, and the compressor if there is to be one.
            form: of the export.
            chat: whether the tokenizer is the chat kind.
            opening: symbols before a text.
        """
        config = model.config
        backbone = getattr(config, "backbone_config", config)
        return cls(
            form=form,
            family=backbone.model_type,
            parameters=_numbers_in(folder) or sum(weight.numel() for weight in model.parameters()),
            layers=backbone.num_hidden_layers,
            hidden=backbone.hidden_size,
            context=context_length(config),
            opening="".join(map(special_spelling, opening)),
            chat=chat,
            heads=_heads(config, folder),
            transformers=_oldest(form),
            code=any(folder.rglob("*.py")),
            compressor=_compressor(folder),
        )


_FACTS = TypeAdapter(ExportFacts)


def write_facts(facts: ExportFacts, folder: Path) -> None:
    """Write ``export.json``."""
    write_text(folder / EXPORT_REPORT, _FACTS.dump_json(facts, indent=2).decode() + "\n")


def read_facts(folder: Path) -> ExportFacts:
    """Read ``export.json``.

    Raises:
        ProxyByteError: if there is none, or it is damaged.
    """
    path = folder / EXPORT_REPORT
    try:
        return _FACTS.validate_json(path.read_bytes())
    except OSError as error:
        raise ProxyByteError(f"{folder} is no export of this version: make one with 'proxybyte export'") from error
    except ValidationError as error:
        raise ProxyByteError(f"{path} is damaged: export the model again") from error


def _numbers_in(folder: Path) -> int:
    """How many the safetensors files of the model in ``folder`` hold."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                total += math.prod(file.get_slice(name).get_shape())
    return total


def _heads(config: "PreTrainedConfig", folder: Path) -> int:
    """Of the model, or of the file beside a native one."""
    from safetensors import safe_open

    if (folder / HEADS_FILE).is_file():
        with safe_open(folder / HEADS_FILE, framework="pt") as file:
            return file.get_slice("heads").get_shape()[0] // NUM_RAW_SYMBOLS
    return getattr(config, "num_pred_heads", 1) - 1 + getattr(config, "num_raw_pred_heads", 0)


def _oldest(form: str) -> str:
    if form == "full":
        from proxybyte.configuration_proxybyte import OLDEST_TRANSFORMERS

        return ".".join(map(str, OLDEST_TRANSFORMERS))
    return OLDEST_NATIVE if form == "native" else ""


def _compressor(folder: Path) -> str | None:
    manifest = folder / COMPRESSOR_FOLDER / COMPRESSOR_MANIFEST
    return json.loads(manifest.read_bytes()).get("family", "unknown") if manifest.is_file() else None
