"""Checkpoints: one folder each, written whole or not at all, and no pickle in it.

``checkpoints/step-00000100/`` holds ``model/`` (what ``from_pretrained`` loads), ``optimizer.safetensors`` and
``state.json``: the step, what was seen so far, the config, and the size and SHA-256 of every other file. It is written
as ``step-00000100.tmp``, synced and renamed. Weights and optimizer state are whole tensors whatever number of
processes wrote them, so any number can go on from them. There is no generator state: dropout is seeded by row.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from proxybyte.artefacts import CHECKPOINTS_FOLDER, MODEL_FOLDER
from proxybyte.checksums import SEAL, is_inside, sealed_json, unsealed_json
from proxybyte.errors import ProxyByteError
from proxybyte.folders import finish, remove_folder, sync, sync_tree

from .optim import HasParameters

log = logging.getLogger(__name__)

STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
KIND = "checkpoint"
"""Of output (``proxybyte.folders``)."""


@dataclass(frozen=True)
class RunState:
    """What a checkpoint says beside tensors.

    Attributes:
        step: finished optimizer steps; with the config, this is the whole state of the data.
        totals: what was seen so far (``Totals.as_dict``).
        config: the run's config (``model_dump(mode="json")``).
        data: fingerprint of the prepared data.
    """

    step: int
    totals: dict[str, float]
    config: dict[str, Any]
    data: str


def whole_tensors(tensors: Mapping[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """Host copies of ``tensors``, gathered where they are sharded.

    Every process must call this; only those with ``keep`` get something.
    """
    whole = {}
    for name, tensor in tensors.items():
        value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            whole[name] = value.detach().cpu().contiguous()
    return whole


def optimizer_tensors(model: HasParameters, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state by name: ``PARAMETER/exp_avg`` and so on.

    A plain number becomes a scalar tensor, and a table that parameters share (8-bit AdamW's) a copy for each, because
    safetensors knows neither.
    """
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, parameter in model.named_parameters():
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
            tensors[f"{name}/{key}"] = tensor.clone() if id(tensor) in seen else tensor
            seen.add(id(tensor))
    return tensors


def load_optimizer(
    model: HasParameters, optimizer: Optimizer, path: Path, may_lack: Collection[str] = frozenset()
) -> None:
    """Read what :func:`optimizer_tensors` named into ``optimizer``, sharded as the parameters are.

    Args:
        model: whose trainable parameters the optimizer moves.
        optimizer: changed in place.
        path: the file.
        may_lack: parameters that may not have moved yet.

    Raises:
        ProxyByteError: if the file is of another model.
    """
    with safe_open(path, framework="pt") as file:
        stored: dict[str, list[str]] = {}
        for key in file.keys():  # noqa: SIM118 (no mapping)
            stored.setdefault(key.rpartition("/")[0], []).append(key)
        parameters = dict(model.named_parameters())
        trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
        if odd := sorted((stored.keys() - trained) | (trained - stored.keys() - set(may_lack))):
            raise ProxyByteError(f"{path} is of another model: {odd[0]} is only in one of them")
        for name, keys in stored.items():
            parameter = parameters[name]
            optimizer.state[parameter] = {
                key.rpartition("/")[2]: _like(file.get_tensor(key), parameter) for key in keys
            }
            if type(optimizer) is not torch.optim.AdamW:
                optimizer.state[parameter]["step"] = int(optimizer.state[parameter]["step"])


def _like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """``value`` on the parameter's device, sharded as it is (scalars are not)."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor) and value.ndim:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value


class CheckpointFolder:
    """``checkpoints/`` of a run."""

    def __init__(self, run: Path, keep: int):
        self.folder = run / CHECKPOINTS_FOLDER
        self.keep = keep

    def of_step(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"step-{step:08d}"

    def save(
        self,
        state: RunState,
        optimizer: Mapping[str, torch.Tensor],
        save_model: Callable[[Path], None],
        beside: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    ) -> Path:
        """Write one checkpoint, then drop the oldest beyond ``keep``. One process calls this.

        Args:
            state: what it says beside tensors.
            optimizer: of :func:`optimizer_tensors`.
            save_model: writes the model's folder.
            beside: further files of tensors, by name.
        """
        final = self.of_step(state.step)
        partial = final.with_suffix(".tmp")
        self.clear_away()
        try:
            partial.mkdir(parents=True)
            save_model(partial / MODEL_FOLDER)
            for name, tensors in {OPTIMIZER_FILE: optimizer, **(beside or {})}.items():
                save_file(dict(tensors), partial / name)
            finish(partial, KIND)
            written = sorted(path for path in partial.rglob("*") if path.is_file())
            files = {str(path.relative_to(partial)): _describe(path) for path in written}
            text = sealed_json({**vars(state), "files": files}, indent=1)
            (partial / STATE_FILE).write_text(text, encoding="utf-8")
            sync_tree(partial)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # a full disk gets its room back
        sync(self.folder)
        for old in self._complete()[self.keep :]:
            remove_folder(old)
        return final

    def clear_away(self) -> None:
        """Remove what a killed process left of a checkpoint that it was writing, or removing."""
        for left in self.folder.glob("step-*.tmp"):
            shutil.rmtree(left, ignore_errors=True)

    def _complete(self) -> list[Path]:
        """Checkpoint folders by name, newest first."""
        found = [path for path in self.folder.glob("step-*") if path.is_dir() and path.suffix != ".tmp"]
        return sorted(found, reverse=True)

    def latest(self) -> tuple[Path, RunState] | None:
        """The newest checkpoint that is whole; says which ones it passes over, and why."""
        for path in self._complete():
            try:
                return path, read_state(path)
            except ProxyByteError as error:
                log.warning("ignoring %s", error)
        return None


def read_state(checkpoint: Path) -> RunState:
    """Read and verify a checkpoint.

    Raises:
        ProxyByteError: if ``state.json`` or another file is absent, truncated or altered; the message names it.
    """
    try:
        content = (checkpoint / STATE_FILE).read_bytes()
        values = json.loads(content)
        values = unsealed_json(content) if SEAL in values else values  # earlier versions sealed none
        files = dict(values.pop("files"))
        state = RunState(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProxyByteError(f"checkpoint {checkpoint}: {STATE_FILE} cannot be read ({error})") from error
    for name, wanted in files.items():
        path = checkpoint / name
        if not is_inside(name):
            raise ProxyByteError(f"checkpoint {checkpoint}: {STATE_FILE} names {name!r}, which lies outside of it")
        if not path.is_file():
            raise ProxyByteError(f"checkpoint {checkpoint}: {name} is missing")
        if _describe(path) != wanted:
            raise ProxyByteError(f"checkpoint {checkpoint}: {name} is damaged")
    return state


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
