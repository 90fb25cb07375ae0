"""What a base learnt as an instruct model, added to a byte model made of that base: task arithmetic (arXiv 2212.04089).

With :math:`W` the byte model's weights, :math:`B` the base's and :math:`I` those of the model that was made of the base
by instruction tuning,

.. math:: W' = W + s\\,(I - B)

over every weight of the decoder, and over the rows of tokens and of the specials that began as one of its tokens. The
bytes' own rows stay: nothing in :math:`I - B` is about them. No text is needed and nothing is trained.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from proxybyte import ProxyByteForCausalLM, build_tokenizer, save_tokenizer
from proxybyte.artefacts import CHAT_FOLDER, COMPRESSOR_FOLDER, find_model
from proxybyte.checksums import WEIGHTS, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.faults import loading
from proxybyte.folders import output_folder, whole_folder
from proxybyte.model_loading import SAFELY
from proxybyte.symbols import COMPRESSED_OFFSET

from .base import ENDS, Base, open_base, renamed
from .chat_template import save_chat_tokenizer
from .specials import map_specials

KIND = "grafted model"
"""Of output (``proxybyte.folders``)."""


@dataclass(frozen=True)
class Graft:
    """What was added.

    Attributes:
        weights: tensors of the decoder that moved.
        rows: of the compressed view and of specials that moved.
        moved: norm of what was added over the norm of the weights before.
    """

    weights: int
    rows: int
    moved: float


def graft(model: str, base: str, instruct: str, out: Path, scale: float = 1.0) -> Graft:
    """Write a byte model with what ``instruct`` learnt beyond ``base``, and its chat template.

    Args:
        model: a run, a model folder or an export, byteified from ``base`` and trained or not.
        base: the tokenizer model that it was made of: a Hub name, a folder, or a GGUF file.
        instruct: the model that was tuned from that base.
        out: folder to write, whole or not at all.
        scale: of the difference; 1 adds it as it is.

    Raises:
        ProxyByteError: if the three do not fit each other.
    """
    with output_folder(out, KIND):
        found = find_model(model)
        verify_folder(found.model, WEIGHTS)
        with loading(found.model, "the byte model"):
            own = ProxyByteForCausalLM.from_pretrained(found.model, **SAFELY)
        theirs = open_base(instruct)
        done = add_difference(own, open_base(base), theirs, scale)
        with whole_folder(out, KIND) as folder:
            own.save_pretrained(folder)
            limit = getattr(own.config, "max_position_embeddings", None)
            save_tokenizer(build_tokenizer(opening=own.config.document_opening), folder)
            if found.compressor is not None:
                shutil.copytree(found.compressor, folder / COMPRESSOR_FOLDER)
            save_chat_tokenizer(theirs.tokenizer, folder / CHAT_FOLDER, limit)
    return done


@torch.no_grad()
def add_difference(own: ProxyByteForCausalLM, base: Base, instruct: Base, scale: float) -> Graft:
    """Add ``scale`` times the difference to ``own`` in place.

    Raises:
        ProxyByteError: if a weight is absent or of another shape in one of the three, or the tokenizers differ.
    """
    if base.tokenizer.get_vocab() != instruct.tokenizer.get_vocab():
        _refuse(instruct, "its tokenizer is not that of the base")
    before, after = (_weights(one) for one in (base, instruct))
    specials = torch.from_numpy(map_specials(base.tokenizer))
    named, weights, rows = dict(own.named_parameters()), 0, 0
    added = whole = 0.0
    for name, weight in named.items():
        if name not in before and not name.endswith(ENDS):
            continue  # heads that predict further, and the like, are the byte model's own
        if name not in before or name not in after or before[name].shape != after[name].shape:
            _refuse(instruct, f"its weight {name} is not that of the base")
        delta = scale * (after[name].to(torch.float32) - before[name].to(torch.float32))
        if name.endswith(ENDS):
            delta = _rows_of(weight, delta, specials)
            rows += int((delta.abs().sum(dim=1) > 0).sum())
        elif delta.shape != weight.shape:
            raise ProxyByteError(f"{base.source.given} is not what the byte model was made of: {name} differs in shape")
        else:
            weights += int(bool(delta.any()))
        added += float(delta.square().sum())
        whole += float(weight.float().square().sum())
        weight.add_(delta.to(weight.dtype))
    return Graft(weights, rows, (added / whole) ** 0.5)


def _weights(base: Base) -> dict[str, Any]:
    model = base.load(torch.float32)
    return renamed(model.state_dict(), model.base_model_prefix)


def _rows_of(weight: torch.Tensor, delta: torch.Tensor, specials: torch.Tensor) -> torch.Tensor:
    """The difference of the base's rows laid out as the byte model's: specials, bytes (nothing), tokens."""
    count = COMPRESSED_OFFSET + len(delta)
    if weight.shape != (count, delta.shape[1]):
        raise ProxyByteError(
            f"the byte model has {len(weight)} rows, and a base of {len(delta)} gives {count}: "
            "it was made of another base, or its compressed rows are gone (native export)"
        )
    wide = torch.zeros(weight.shape)
    known = specials >= 0
    wide[: len(specials)][known] = delta[specials[known]]
    wide[COMPRESSED_OFFSET:] = delta
    return wide


def _refuse(instruct: Base, reason: str) -> None:
    raise ProxyByteError(f"{instruct.source.given}: {reason}: give a model that was tuned from that base")
