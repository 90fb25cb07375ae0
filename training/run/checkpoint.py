"""Checkpoints: one folder each, written whole or not at all, and no pickle in it.

``checkpoints/step-00000100/`` holds ``model/`` (what ``from_pretrained`` loads), ``optimizer.safetensors`` and
``state.json``: the step, what was seen so far, the config, and the size and SHA-256 of every other file. It is written
as ``step-00000100.tmp``, synced and renamed. Weights and optimizer state are whole tensors there. Where the processes
share the model among them (FSDP), ``weights/`` and ``optimizer/`` stand in their place, which hold each process's part
(:mod:`.sharded`). Any number of processes goes on from either. There is no generator state: dropout is seeded by row.
"""

import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from proxybyte.artefacts import CHECKPOINTS_FOLDER, MODEL_FOLDER, WEIGHTS_FOLDER
from proxybyte.checksums import SEAL, SUMS, file_digest, is_inside, sealed_json, unsealed_json
from proxybyte.errors import ProxyByteError
from proxybyte.folders import finish, remove_folder, sync, write_text

from .distributed import ALONE, World
from .optim import HasParameters
from .sharded import (
    OPTIMIZER_FOLDER,
    SHARDS,
    holds_shards,
    load_shards,
    save_shards,
    stored_shapes,
    stored_tensors,
    write_whole,
)

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


def host_copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``tensors`` on the host, as ``safetensors`` takes them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


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


def model_in(checkpoint: Path) -> Path:
    """The folder in a checkpoint that holds the model's configuration, and its weights, whole or in shards."""
    return checkpoint / (WEIGHTS_FOLDER if holds_shards(checkpoint) else MODEL_FOLDER)


def write_model(checkpoint: Path, folder: Path) -> None:
    """Write the model's folder, or the adapter's, that a checkpoint holds; its weights are whole there.

    Args:
        checkpoint: whole or in shards.
        folder: is there, and empty.

    Raises:
        ProxyByteError: if a shard cannot be read.
    """
    shutil.copytree(model_in(checkpoint), folder, ignore=shutil.ignore_patterns(SHARDS), dirs_exist_ok=True)
    if holds_shards(checkpoint):
        write_whole(checkpoint / WEIGHTS_FOLDER, folder)


def restore(
    checkpoint: Path,
    model: nn.Module,
    moved: HasParameters,
    optimizer: Optimizer,
    may_lack: Collection[str] = frozenset(),
) -> None:
    """Read what a checkpoint holds beside whole weights, which :func:`~.model_source.make_model` reads.

    Args:
        checkpoint: whole or in shards.
        model: placed on the processes; changed in place where the weights are in shards.
        moved: whose trainable parameters the optimizer moves.
        optimizer: changed in place.
        may_lack: parameters that may not have moved yet.

    Raises:
        ProxyByteError: if it is of another model.
    """
    if holds_shards(checkpoint):
        load_shards(checkpoint / WEIGHTS_FOLDER, stored_tensors(model))
        _load_optimizer_shards(moved, optimizer, checkpoint / OPTIMIZER_FOLDER, may_lack)
    else:
        load_optimizer(moved, optimizer, checkpoint / OPTIMIZER_FILE, may_lack)


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
        keys = list(file.keys())
        parameters = _parameters_of(keys, model, path, may_lack)
        _give(optimizer, parameters, {key: _like(file.get_tensor(key), parameters[_name(key)]) for key in keys})


def _load_optimizer_shards(model: HasParameters, optimizer: Optimizer, folder: Path, may_lack: Collection[str]) -> None:
    shapes = stored_shapes(folder)
    parameters = _parameters_of(shapes, model, folder, may_lack)
    tensors = {key: _room(*kind, parameters[_name(key)]) for key, kind in shapes.items()}
    load_shards(folder, tensors)
    _give(optimizer, parameters, tensors)


def _name(key: str) -> str:
    """Of the parameter that a tensor of the optimizer belongs to."""
    return key.rpartition("/")[0]


def _parameters_of(
    keys: Iterable[str], model: HasParameters, where: Path, may_lack: Collection[str]
) -> dict[str, nn.Parameter]:
    """All parameters by name, once it is sure that ``keys`` are of those that are trained."""
    stored = {_name(key) for key in keys}
    parameters = dict(model.named_parameters())
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    if odd := sorted((stored - trained) | (trained - stored - set(may_lack))):
        raise ProxyByteError(f"{where} is of another model: {odd[0]} is only in one of them")
    return parameters


def _give(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, torch.Tensor]) -> None:
    for key, tensor in tensors.items():
        optimizer.state[parameters[_name(key)]][key.rpartition("/")[2]] = tensor
    if type(optimizer) is not torch.optim.AdamW:
        for name in {_name(key) for key in tensors}:
            optimizer.state[parameters[name]]["step"] = int(optimizer.state[parameters[name]]["step"])


def _room(size: torch.Size, dtype: torch.dtype, parameter: nn.Parameter) -> torch.Tensor:
    """Zeros, sharded as ``parameter`` is (scalars are not)."""
    if size == parameter.shape:
        return torch.zeros_like(parameter.detach(), dtype=dtype)
    return torch.zeros(size, dtype=dtype, device=parameter.device)


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

    @staticmethod
    def has(run: Path) -> bool:
        """Whether ``run`` is one: whether it has such a folder."""
        return (run / CHECKPOINTS_FOLDER).is_dir()

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
        partial = self._partial(state.step)
        self.clear_away()
        try:
            partial.mkdir(parents=True)
            save_model(partial / MODEL_FOLDER)
            for name, tensors in {OPTIMIZER_FILE: optimizer, **(beside or {})}.items():
                save_file(dict(tensors), partial / name)
            return self._publish(state, {})
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # a full disk gets its room back

    def save_shards(
        self,
        state: RunState,
        world: World,
        parts: Mapping[str, Mapping[str, torch.Tensor]],
        save_model: Callable[[Path], None],
    ) -> None:
        """:meth:`save` of a model that the processes share, each its part; every process must call this.

        Args:
            state: what it says beside tensors.
            world: the processes.
            parts: tensors by name for :data:`WEIGHTS_FOLDER` and :data:`OPTIMIZER_FOLDER`.
            save_model: writes into the weights' folder what a model's folder holds beside weights.

        Raises:
            ProxyByteError: if a process writes where the first one does not see it.
        """
        partial = self._partial(state.step)
        try:
            if world.is_main:
                self.clear_away()
                partial.mkdir(parents=True)
            world.wait()
            files: dict[str, dict[str, Any]] = {}
            for folder, tensors in parts.items():
                for path in save_shards(partial / folder, tensors, world.rank, world.size):
                    files[f"{folder}/{path.name}"] = _describe(path)  # each process its own, at the same time
            everyone = world.gather_texts(json.dumps(files))
            if world.is_main:
                _check_all_seen(partial, everyone)
                save_model(partial / WEIGHTS_FOLDER)
                written = {name: told["sha256"] for text in everyone for name, told in json.loads(text).items()}
                self._publish(state, written)
        finally:
            if world.is_main:
                shutil.rmtree(partial, ignore_errors=True)
        world.wait()

    def _partial(self, step: int) -> Path:
        return self.of_step(step).with_suffix(".tmp")

    def _publish(self, state: RunState, known: Mapping[str, str]) -> Path:
        """Put the folder that was filled into its place; ``known`` files are not read again for their SHA-256."""
        final, partial = self.of_step(state.step), self._partial(state.step)
        record = finish(partial, KIND, known=known)
        sums = {**record.sums, SUMS: file_digest(partial / SUMS)}
        files = {name: {"bytes": (partial / name).stat().st_size, "sha256": sums[name]} for name in sorted(sums)}
        write_text(partial / STATE_FILE, sealed_json({**vars(state), "files": files}, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
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

    def latest(self, world: World = ALONE) -> tuple[Path, RunState] | None:
        """The newest checkpoint that is whole; says which ones it passes over, and why. Every process must call this.

        Raises:
            ProxyByteError: if a process does not see what the first one sees.
        """
        names = [path.name for path in self._complete()]
        for name in json.loads(world.gather_texts(json.dumps(names))[0]):
            path = self.folder / name
            seen = world.gather(np.array([path.is_dir()], np.float64))[:, 0]
            if not seen.all():
                raise ProxyByteError(
                    f"process {int(seen.argmin())} does not see {path}: the output of a run on several machines must "
                    "lie on storage that all of them share"
                )
            try:
                return path, read_state(path, world)
            except ProxyByteError as error:
                log.warning("ignoring %s", error)
        return None


def read_state(checkpoint: Path, world: World = ALONE) -> RunState:
    """Read and verify a checkpoint; every process must call this, and each reads its share of the files.

    Raises:
        ProxyByteError: if ``state.json`` or another file is absent, truncated or altered; the message names it.
    """
    fault, files = "", {}
    try:
        content = (checkpoint / STATE_FILE).read_bytes()
        values = json.loads(content)
        values = unsealed_json(content) if SEAL in values else values  # earlier versions sealed none
        files = dict(values.pop("files"))
        state = RunState(**values)
        mine = list(files.items())[world.rank :: world.size]
        fault = next((found for name, wanted in mine if (found := _fault(checkpoint / name, name, wanted))), "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fault = f"{STATE_FILE} cannot be read ({error})"
    if told := [each for each in world.gather_texts(fault) if each]:
        raise ProxyByteError(f"checkpoint {checkpoint}: {told[0]}")
    return state


def _fault(path: Path, name: str, wanted: dict[str, Any]) -> str:
    """What is wrong with a file, in a few words; nothing where it is what was written."""
    if not is_inside(name):
        return f"{STATE_FILE} names {name!r}, which lies outside of it"
    if not path.is_file():
        return f"{name} is missing"
    return "" if _describe(path) == wanted else f"{name} is damaged"


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def _check_all_seen(partial: Path, everyone: Iterable[str]) -> None:
    for rank, text in enumerate(everyone):
        for name, told in json.loads(text).items():
            path = partial / name
            if not path.is_file() or path.stat().st_size != told["bytes"]:
                raise ProxyByteError(
                    f"process {rank} wrote {name} where process 0 does not see it: the output of a sharded run must "
                    "lie on storage that all machines share"
                )
