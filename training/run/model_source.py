"""The model of a run: new from a size, or going on from a folder; and what it says of where it comes from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.artefacts import PREPARED_MANIFEST, ModelFolder
from proxybyte.checksums import WEIGHTS, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.faults import loading
from proxybyte.hub_configs import load_preset
from proxybyte.model_loading import SAFELY
from proxybyte.provenance import CodesFacts, DataFacts, TrainingFacts, copy_provenance, read_provenance, write_training
from proxybyte.symbols import NUM_RAW_SYMBOLS

from ..machine import host_memory, refuse_beyond
from ..prepare.manifest import read_manifest
from ..stream.plan import PlanConfig
from .config import AdapterConfig, AdapterKind, Attention, ComputeConfig, ModelConfig
from .metrics import Totals
from .sharded import in_shards


@dataclass(frozen=True)
class ModelSource:
    """Where the model of a run comes from, and what it has to fit.

    Attributes:
        asked: a size, a decoder's configuration or a folder.
        plan: what rows it reads.
        adapter: what is trained in the place of its weights.
        compute: where it is trained.
        seed: of its first weights.
        num_codes: codes of the data's compressor; a compressed symbol has a row each.
        data: what they come from, for messages.
    """

    asked: ModelConfig
    plan: PlanConfig
    adapter: AdapterConfig
    compute: ComputeConfig
    seed: int
    num_codes: int
    data: Path

    def make(self, checkpoint: Path | None) -> ProxyByteForCausalLM:
        """The model in float32 on the CPU (bfloat16 under an adapter that asks for it), in training mode.

        Args:
            checkpoint: model folder of the run's own checkpoint, if it goes on from one. Where its weights are in
                shards, the model's are whatever they were made as: each process reads its part once it is placed.

        Raises:
            ProxyByteError: if the preset or the folder is absent, or does not fit the data.
        """
        transformers_logging.disable_progress_bar()
        base = self.asked.base
        folder = checkpoint or (base.model if base else None)
        # A model from a folder, too, may get heads that it did not have.
        torch.manual_seed(self.seed)
        model = self._load(folder) if folder else self._new()
        self.check_fit(model.config, folder)
        if self.compute.activation_checkpointing:
            model.activation_checkpointing_enable()
        return model.train()

    def shape(self, folder: Path | None) -> tuple[ProxyByteConfig, str]:
        """The configuration of the model, and what it comes from, for messages.

        Args:
            folder: whose model it goes on from; ``None`` for a new one.

        Raises:
            ProxyByteError: if the preset or the folder is absent, or cannot be read.
        """
        if folder is None:
            return self.new_shape(), self._what
        with _in_our_words(folder, self.asked.attention):
            _check_heads(folder, self.asked.heads)
            return ProxyByteConfig.from_pretrained(folder, **self.asked.heads), f"the model in {folder}"

    def new_shape(self) -> ProxyByteConfig:
        """Configuration of a new model.

        Raises:
            ProxyByteError: if the preset is absent, or the decoder is none that ProxyByte can train.
        """
        if self.asked.preset:
            # A model knows the positions that it was trained on: its config must not promise more.
            size = load_preset(self.asked.preset).backbone_config
            backbone = {**size, "max_position_embeddings": self.plan.row_length}
        else:
            backbone = dict(self.asked.backbone_config or {})
        with _named(self._what):
            return ProxyByteConfig(
                backbone_config=backbone,
                num_compressed_symbols=self.num_codes,
                document_opening=self.plan.document_opening.value,
                **self.asked.heads,
            )

    def check_fit(self, shape: ProxyByteConfig, folder: Path | None) -> None:
        """Refuse a model that does not fit the data.

        Raises:
            ProxyByteError: if it lacks symbols of the compressor, or its documents open otherwise.
        """
        rows, needed = int(shape.vocab_size), NUM_RAW_SYMBOLS + self.num_codes
        if rows < needed:
            raise ProxyByteError(
                f"the model in {folder} has {rows} symbols, but the compressor of {self.data} needs {needed}: "
                "prepare the data with the compressor that the model was trained with"
            )
        if shape.document_opening != self.plan.document_opening:
            raise ProxyByteError(
                f"the model in {folder} was trained on documents that open with {shape.document_opening}: "
                f"set plan.document_opening='{shape.document_opening}'"
            )

    def without_storage(self, shape: ProxyByteConfig, what: str) -> ProxyByteForCausalLM:
        """The model on the meta device; refuses one that cannot be built, or whose training this machine cannot hold.

        Weights, and on a CPU also gradients and AdamW's two moments, lie in main memory in float32.

        Raises:
            ProxyByteError: saying what is wrong with the shape, or both sizes.
        """
        backbone = shape.backbone_config
        heads, kv_heads = (getattr(backbone, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
        if heads and kv_heads and heads % kv_heads:
            raise ProxyByteError(
                f"{what} makes no model: num_attention_heads ({heads}) is no multiple of num_key_value_heads "
                f"({kv_heads})"
            )
        with _named(what), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(shape)
        weights = sum(weight.numel() for weight in model.parameters())
        on_cpu = self.compute.device == "cpu" or not torch.accelerator.is_available()
        whole = self.adapter.kind is AdapterKind.NONE and on_cpu
        size = getattr(torch, self.adapter.frozen.value).itemsize + (12 if whole else 0)
        told = f"training {what} ({weights:,} weights)"
        refuse_beyond(host_memory(), weights * size, told, "take a smaller one, or fewer heads")
        return model

    @property
    def _what(self) -> str:
        """A new model, for messages."""
        return f"preset {self.asked.preset}" if self.asked.preset else "model.backbone_config"

    def _new(self) -> ProxyByteForCausalLM:
        return self._made(*self.shape(None))

    def _made(self, shape: ProxyByteConfig, what: str) -> ProxyByteForCausalLM:
        self.without_storage(shape, what)
        torch.manual_seed(self.seed)
        with _named(what):
            return AutoModelForCausalLM.from_config(
                shape, dtype=torch.float32, attn_implementation=self.asked.attention.value
            )

    def _load(self, folder: Path) -> ProxyByteForCausalLM:
        shape, what = self.shape(folder)
        if in_shards(folder):
            return self._made(shape, what)
        verify_folder(folder, WEIGHTS)
        self.without_storage(shape, what)
        with _in_our_words(folder, self.asked.attention):
            return ProxyByteForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, self.adapter.frozen.value),
                attn_implementation=self.asked.attention.value,
                **SAFELY,
                **self.asked.heads,
            )


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Say of a configuration that makes no model that it is the one to mend: Transformers fails in any way on it."""
    try:
        yield
    except ProxyByteError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[-1].strip() or "no reason given"
        raise ProxyByteError(f"{what} makes no model: {reason} ({type(error).__name__})") from error


@contextmanager
def _in_our_words(folder: Path, attention: Attention) -> Iterator[None]:
    """As :func:`loading`; our own errors name the folder, and a refused implementation of attention its setting."""
    try:
        with loading(folder, "model"):
            yield
    except ProxyByteError as error:
        if "does not support an attention implementation" in str(error):
            raise ProxyByteError(
                f"the model in {folder} does not run with model.attention={attention}: set model.attention=eager"
            ) from error
        if str(folder) in str(error):
            raise
        raise ProxyByteError(f"cannot load the model in {folder}: {error}") from error


def _check_heads(folder: Path, asked: dict[str, Any]) -> None:
    """Refuse another number of heads than the model has, unless it has none yet."""
    found = ProxyByteConfig.from_pretrained(folder)
    for name, none in (("num_pred_heads", 1), ("num_raw_pred_heads", 0)):
        there = getattr(found, name)
        if asked.get(name, there) != there and there != none:
            raise ProxyByteError(
                f"the model in {folder} has {name}={there}: leave model.{name} out, heads are only added to none"
            )


_WHOLE = "all"


@dataclass(frozen=True)
class ModelOrigin:
    """What a run says of itself in every model folder that it writes (:mod:`proxybyte.provenance`).

    Attributes:
        base: what it started from; ``None`` for a new one.
        data: a prepared folder, or a file of conversations.
        plan: what was shown of it.
        adapter: what was trained in the place of its weights.
        seed: of its first weights.
    """

    base: ModelFolder | None
    data: Path
    plan: PlanConfig
    adapter: AdapterKind
    seed: int

    def write(self, folder: Path, step: int, totals: Totals, validation: Mapping[str, float]) -> None:
        """Hand on what the model came with, and add this run to it.

        Args:
            folder: of the model, or of the adapter.
            step: finished steps.
            totals: what was seen so far.
            validation: the last bits per byte by metric name; empty where none was measured.
        """
        if self.base is not None:
            copy_provenance(self.base.model, folder)
        codes, data = self._of_data()
        facts = TrainingFacts(
            steps=step,
            symbols=totals.symbols,
            flops=totals.flops,
            seen=totals.shares(),
            row_length=self.plan.row_length,
            weights=_WHOLE if self.adapter is AdapterKind.NONE else str(self.adapter),
            chat=self.data.is_file(),
            seed=self.seed,
            codes=codes,
            data=data,
            validation=dict(validation),
        )
        write_training(folder, (*read_provenance(folder).training, facts))

    def _of_data(self) -> tuple[CodesFacts | None, DataFacts]:
        """Of a prepared folder; conversations, and a folder without a manifest, say nothing of themselves."""
        if not (self.data / PREPARED_MANIFEST).is_file():
            return None, DataFacts()
        manifest = read_manifest(self.data)
        info = manifest.compressor
        codes = CodesFacts(info.name, info.family, info.num_symbols, manifest.ratio)
        return codes if self.plan.schedule.shows_compressed else None, manifest.data
