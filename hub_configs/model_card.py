"""The README.md of an exported folder."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from proxybyte.artefacts import COMPRESSOR_FOLDER, COMPRESSOR_MANIFEST
from proxybyte.model_loading import context_length
from proxybyte.symbols import special_spelling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OLDEST_NATIVE = "4.57"
"""Version of Transformers from which a native export is tested; the full one's is its code's."""


@dataclass(frozen=True)
class CardFacts:
    """What the card says beside what the model and the folder show.

    Attributes:
        name: what the folder will be called.
        form: ``native``, ``full`` or ``gguf``.
        chat: whether the tokenizer is the chat kind.
        opening: symbols before a text.
    """

    name: str
    form: str
    chat: bool
    opening: Sequence[int]


def write_model_card(model: "PreTrainedModel", folder: Path, facts: CardFacts) -> None:
    """Write ``folder/README.md`` from ``templates/model_card.md``; states only what the folder itself shows.

    Args:
        model: the model before it was cut.
        folder: what is being exported; its weights are there already.
        facts: the rest.
    """
    template = Template((files("proxybyte.hub_configs") / "templates" / "model_card.md").read_text(encoding="utf-8"))
    backbone = getattr(model.config, "backbone_config", model.config)
    text = template.substitute(
        name=facts.name,
        family=backbone.model_type,
        parameters=f"{_parameters(model, folder) / 1e6:.1f}",
        layers=backbone.num_hidden_layers,
        hidden=backbone.hidden_size,
        context=context_length(model.config) or "unlimited",
        opening=f"`{''.join(map(special_spelling, facts.opening))}`",
        ends="`</raw>`, `<eos>`" + (" or `<|eot_id|>`" if facts.chat else ""),
        code=_code(facts.form),
        use=_use(folder, facts),
        compressor=_compressor(folder),
        drafting=_drafting(model, facts),
        training=_training(facts),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _code(form: str) -> str:
    if form == "gguf":
        return "The file is for llama.cpp."
    if form == "native":
        return f"It needs no remote code; Transformers {OLDEST_NATIVE} or newer."
    from proxybyte.configuration_proxybyte import OLDEST_TRANSFORMERS

    oldest = ".".join(map(str, OLDEST_TRANSFORMERS))
    return f"Its class and code files are in this folder; they need Transformers {oldest} or newer."


def _use(folder: Path, facts: CardFacts) -> str:
    """How to get a text out of it."""
    if facts.form == "gguf":
        file = next(folder.glob("*.gguf")).name
        return f"```sh\nllama-server -m {file}\n```"
    trust = ", trust_remote_code=True" if facts.form == "full" else ""
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{facts.name}"{trust})
model = AutoModelForCausalLM.from_pretrained("{facts.name}"{trust})
prompt = tokenizer("def fibonacci(n):", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0], skip_special_tokens=True))
```"""


def _parameters(model: "PreTrainedModel", folder: Path) -> int:
    """Numbers in the folder's weights, or in the model where they are of another format."""
    return _exported_parameters(folder) or sum(weight.numel() for weight in model.parameters())


def _exported_parameters(folder: Path) -> int:
    """Numbers in the safetensors files of ``folder``."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                total += math.prod(file.get_slice(name).get_shape())
    return total


def _drafting(model: "PreTrainedModel", facts: CardFacts) -> str:
    """How to use the heads that predict further, where the folder has them."""
    heads = getattr(model.config, "num_pred_heads", 1) - 1 + getattr(model.config, "num_raw_pred_heads", 0)
    if not heads or facts.form == "gguf":
        return ""
    several = "s, which predict" if heads > 1 else ", which predicts"
    more = f"\nIt has {heads} more head{several} further than the next byte: "
    if facts.form == "native":
        return (
            f'{more}`model.generate(**prompt, do_sample=False,\ncustom_generate="{facts.name}", '
            f"trust_remote_code=True)` writes up to {heads + 1} bytes a step with the code in\n`custom_generate/`. "
            "The output is that of one byte at a time.\n"
        )
    return (
        f'{more}`model.generate(**prompt, draft="heads")`\nwrites up to {heads + 1} bytes a step, and '
        "`draft_repeats=True` drafts what the text says again. The output is that\nof one byte at a time.\n"
    )


def _training(facts: CardFacts) -> str:
    """What a trainer that appends ends as text must be told."""
    if facts.form != "native" or facts.chat:
        return ""
    return (
        "\nTo train it with TRL, load the tokenizer by\n"
        f'`AutoTokenizer.from_pretrained("{facts.name}", split_special_tokens=False)`: TRL appends `<eos>` as text,\n'
        "which otherwise is five bytes that teach the model no end.\n"
    )


def _compressor(folder: Path) -> str:
    manifest = folder / COMPRESSOR_FOLDER / COMPRESSOR_MANIFEST
    if not manifest.is_file():
        return ""
    family = json.loads(manifest.read_bytes()).get("family", "unknown")
    return f"\nThe compressor it was trained with (family `{family}`) is in `{COMPRESSOR_FOLDER}/`.\n"
