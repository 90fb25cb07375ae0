"""LoRA and DoRA by PEFT: the decoder's weights stay, an adapter and rows of embedding and head are trained.

PEFT puts its layers into the model in place, so that the loop trains the same object; this module adds, saves, reads
back and merges them. Embedding and head are trained as themselves (``modules_to_save``, or PEFT's trainable token
rows), never by LoRA: merging a LoRA on tied embeddings adds its delta twice in PEFT 0.21.
"""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from proxybyte import ProxyByteForCausalLM, build_tokenizer, save_tokenizer
from proxybyte.artefacts import ADAPTER_FILE, CHAT_FOLDER, COMPRESSOR_FOLDER, check_adapter, find_model
from proxybyte.checksums import WEIGHTS, verify_folder
from proxybyte.configuration_proxybyte import EMBEDDINGS
from proxybyte.errors import ProxyByteError
from proxybyte.faults import damaged_json
from proxybyte.folders import whole_folder
from proxybyte.model_loading import SAFELY
from proxybyte.provenance import copy_provenance
from proxybyte.symbols import NUM_RAW_SYMBOLS

from .config import AdapterConfig, AdapterKind, TrainedRows
from .precision import exact_products

MERGED = "merged model"
"""Kind of output (``proxybyte.folders``) of ``adapter merge``."""
HEAD = "lm_head"
FURTHER_HEADS = ("pred_heads", "raw_pred_heads")
"""Heads that predict further: no part of the decoder, so trained as themselves beside an adapter."""
_INNER = "base_model.model."
"""What PEFT puts before the names of the model that it wraps."""


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what PEFT says to those who wrote it: a name of Transformers that is to go, kernels nobody asked for."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


@dataclass(frozen=True)
class Adapter:
    """An adapter that sits in a model.

    Attributes:
        peft: PEFT's own wrapper of the model, which knows how to save it.
    """

    peft: Any

    @classmethod
    def attach(
        cls, model: ProxyByteForCausalLM, config: AdapterConfig, seed: int, resume: Path | None = None
    ) -> "Adapter":
        """Put a new adapter into ``model``, which then trains that alone.

        Args:
            model: changed in place.
            config: kind and size.
            seed: of its first weights.
            resume: folder of a saved adapter of the same config, whose weights it takes.

        Raises:
            ProxyByteError: if PEFT is not installed, a target is not in the model, or the saved adapter does not fit.
        """
        if find_spec("peft") is None:
            raise ProxyByteError("trainable.adapter needs the package peft: pip install 'proxybyte[peft]'")
        torch.manual_seed(seed)
        try:
            with _quietly():
                import peft

                adapter = cls(peft.get_peft_model(model, _peft_config(model, config)))
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ProxyByteError(f"trainable.adapter.targets={config.targets!r} does not fit: {reason}") from error
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if resume is not None:
            adapter._read(resume)
        return adapter

    def _read(self, folder: Path) -> None:
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        result: Any = set_peft_model_state_dict(self.peft, load_file(folder / ADAPTER_FILE))
        trained = {name for name, weight in self.peft.named_parameters() if weight.requires_grad}
        if odd := [*result.unexpected_keys, *trained.intersection(result.missing_keys)]:
            raise ProxyByteError(f"{folder / ADAPTER_FILE} is another adapter's: {odd[0]} is only in one of them")

    def __call__(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        """Write what ``PeftModel.from_pretrained`` loads.

        Args:
            folder: made if absent.
            weights: whole tensors of the model that it sits in, by their names there.
        """
        state = {f"{_INNER}{name}": value for name, value in weights.items()}
        self.peft.save_pretrained(folder, state_dict=state, save_embedding_layers=False)


def merge_adapter(base: Path, adapter: Path) -> ProxyByteForCausalLM:
    """The model in ``base`` with the adapter in ``adapter`` merged into its weights, in evaluation mode.

    Raises:
        ProxyByteError: if one cannot be read, or they do not fit.
    """
    check_adapter(adapter)
    base = find_model(base).model
    verify_folder(base, WEIGHTS)
    verify_folder(adapter, WEIGHTS)
    try:
        model = ProxyByteForCausalLM.from_pretrained(base, **SAFELY)
        with _quietly():
            from peft import PeftModel

            return _merged(PeftModel.from_pretrained(model, adapter).eval(), adapter)
    except Exception as error:  # whatever a damaged or foreign folder provokes
        reason = (
            damaged_json(base) or damaged_json(adapter) or next(iter(str(error).splitlines()), type(error).__name__)
        )
        raise ProxyByteError(f"the adapter in {adapter} does not fit the model in {base}: {reason}") from error


def _merged(peft: Any, adapter: Path) -> ProxyByteForCausalLM:
    """The model in ``peft`` with its adapter in its weights; checked, because PEFT does not merge every kind right.

    Raises:
        ProxyByteError: if the merged model gives other logits than the model under its adapter.
    """
    model = peft.get_base_model()
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if model.config.tie_word_embeddings and any(hasattr(end, "lora_A") for end in ends):
        # Each side of one weight has a delta of its own, or one has none: merged, they are two weights.
        head = getattr(ends[1], "base_layer", ends[1])
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False
    probe = torch.arange(NUM_RAW_SYMBOLS)[None, : min(NUM_RAW_SYMBOLS, model.config.max_position_embeddings)]
    with torch.no_grad(), exact_products():  # in bf16 tiles the two differ though the weights are right
        wanted = peft(input_ids=probe, use_cache=False).logits
        merged = peft.merge_and_unload().eval()
        found = merged(input_ids=probe, use_cache=False).logits
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())):
        raise ProxyByteError(
            f"the adapter in {adapter} cannot be merged: the merged weights do not give what the model gives under it; "
            "use it as an adapter, or train one that leaves embedding and head alone"
        )
    return merged


def write_merged(base: Path, adapter: Path, out: Path, *, kind: str = MERGED, chat: Any = None) -> None:
    """Write :func:`merge_adapter`'s model with tokenizers and compressor, whole or not at all.

    Args:
        base: a run, a model folder, an export or a name on the Hub.
        adapter: the adapter's folder.
        out: folder to write.
        kind: of output (``proxybyte.folders``).
        chat: the chat tokenizer to carry; the base's own if absent.

    Raises:
        ProxyByteError: if they do not fit, or ``out`` holds something else.
    """
    with whole_folder(out, kind) as folder:
        model = merge_adapter(base, adapter)
        model.save_pretrained(folder)
        save_tokenizer(build_tokenizer(opening=model.config.document_opening), folder)
        found = find_model(base)
        copy_provenance(found.model, folder)
        copy_provenance(adapter, folder)  # its runs are the base's and its own
        for place, name in ((found.model / CHAT_FOLDER, CHAT_FOLDER), (found.compressor, COMPRESSOR_FOLDER)):
            if place is not None and place.is_dir():
                shutil.copytree(place, folder / name)
        if chat is not None:
            save_tokenizer(chat, folder / CHAT_FOLDER)


def row_modules(model: ProxyByteForCausalLM) -> list[str]:
    """Names of the modules that hold a row a symbol: the embedding, and the head where it is not tied to it."""
    embedding = EMBEDDINGS.get(model.config.backbone_config.model_type, "embed_tokens")
    return [embedding] if model.config.tie_word_embeddings else [embedding, HEAD]


def is_row_weight(model: ProxyByteForCausalLM, name: str) -> bool:
    """Whether the parameter ``name`` of ``model`` belongs to its embedding or head."""
    return bool(set(name.split(".")) & {*row_modules(model), HEAD})


def _peft_config(model: ProxyByteForCausalLM, config: AdapterConfig) -> Any:
    from peft import LoraConfig

    names, rows = row_modules(model), config.rows
    raw = list(range(NUM_RAW_SYMBOLS))
    drafting = [name for name in FURTHER_HEADS if hasattr(model, name)]
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT only divides it
        lora_dropout=config.dropout,
        use_dora=config.kind is AdapterKind.DORA,
        target_modules=config.targets if isinstance(config.targets, str) else list(config.targets),
        exclude_modules=drafting or None,
        modules_to_save=[*(names if rows is TrainedRows.ALL else []), *drafting] or None,
        trainable_token_indices=dict.fromkeys(names, raw) if rows is TrainedRows.RAW else None,
        ensure_weight_tying=bool(model.config.tie_word_embeddings) and rows is TrainedRows.ALL,
    )
