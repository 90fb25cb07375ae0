"""State in shards: each process writes and reads its own part of it, and none ever holds the whole.

By ``torch.distributed.checkpoint`` in its form of safetensors, as torchtitan has it. Where the pieces of a file lie in
the whole tensors stands in that file's header, so that any number of processes finds what it needs. DCP's own form is
not used: it keeps its index, ``.metadata``, as a pickle.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.fsdp import FSDPModule

from proxybyte.artefacts import WEIGHTS_FOLDER
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_json

OPTIMIZER_FOLDER = "optimizer"
"""In a sharded checkpoint: the optimizer's."""
SHARDS = "shard-*.safetensors"
"""Matches every process's files, and nothing else of a model's folder."""
_FILE_BYTES = 512 << 20
"""About so much goes into one file of a process: writing takes twice that in memory beside the state itself."""
_WHOLE_FILE_BYTES = 2 << 30


def is_sharded(model: nn.Module) -> bool:
    """Whether the processes share the parameters of ``model`` among them."""
    return isinstance(model, FSDPModule)


def holds_shards(checkpoint: Path) -> bool:
    """Whether a checkpoint was written in shards."""
    return (checkpoint / WEIGHTS_FOLDER).is_dir()


def in_shards(folder: Path) -> bool:
    """Whether the weights of a model's folder are in shards."""
    return next(folder.glob(SHARDS), None) is not None


def stored_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and stored buffers of ``model`` themselves, by name; one that has several names by its first.

    Behind this call the parameters are sharded: after a forward pass alone some are whole, and no optimizer knows them.
    """
    first: dict[int, str] = {}
    tensors = model.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        first.setdefault(id(tensor), name)
    return {name: tensors[name] for name in first.values()}


def save_shards(folder: Path, tensors: Mapping[str, torch.Tensor], rank: int, size: int) -> list[Path]:
    """Write this process's part of ``tensors``, synced; every process must call this.

    Args:
        folder: shared by all processes.
        tensors: by name, sharded or the same in every process.
        rank: of this process.
        size: number of processes.

    Returns:
        The files that this process wrote.

    Raises:
        OSError: or whatever else stopped a process from writing.
    """
    files = _files_of({name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}, size)
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    with _its_cause():
        dcp.save(dict(tensors), storage_writer=writer, no_dist=not dist.is_initialized())
    return sorted(folder.glob(f"shard-{rank + 1:05d}-*.safetensors"))


def _files_of(sizes: Mapping[str, int], processes: int) -> dict[str, int]:
    """Number of the file, from 1, that each tensor's part goes to."""
    files, number, filled = {}, 1, 0
    for name, size in sizes.items():
        part = -(-size // processes)
        if filled and filled + part > _FILE_BYTES:
            number, filled = number + 1, 0
        files[name] = number
        filled += part
    return files


def stored_shapes(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of every whole tensor whose pieces lie in ``folder``.

    Raises:
        ProxyByteError: if a file cannot be read.
    """
    try:
        found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except Exception as error:  # whatever a damaged header provokes
        raise ProxyByteError(f"the shards in {folder} cannot be read: {error}") from error
    return {
        name: (part.size, part.properties.dtype)
        for name, part in found.items()
        if isinstance(part, TensorStorageMetadata)
    }


def load_shards(folder: Path, tensors: Mapping[str, torch.Tensor], alone: bool = False) -> None:
    """Fill ``tensors`` in place, each process its part of those that are sharded, by any number of processes.

    Args:
        folder: of :func:`save_shards`.
        tensors: by name.
        alone: whether this process calls it without the others.

    Raises:
        ProxyByteError: if one is not there or has another shape; the message names it.
    """
    stored = stored_shapes(folder)
    for name, tensor in tensors.items():
        if name not in stored or stored[name][0] != tensor.shape:
            there = f"of shape {tuple(stored[name][0])}" if name in stored else "absent"
            raise ProxyByteError(
                f"{folder} is of another model: {name} is {there} and not of shape {tuple(tensor.shape)}"
            )
    with _its_cause():
        reader = HuggingFaceStorageReader(str(folder))
        dcp.load(dict(tensors), storage_reader=reader, no_dist=alone or not dist.is_initialized())


def whole_parts(folder: Path, most: int = _WHOLE_FILE_BYTES) -> Iterator[dict[str, torch.Tensor]]:
    """Whole tensors from shards, by name, in groups of at most ``most`` bytes, or of one tensor that is larger.

    Raises:
        ProxyByteError: if a file cannot be read.
    """
    shapes = stored_shapes(folder)
    for names in _groups({name: size.numel() * dtype.itemsize for name, (size, dtype) in shapes.items()}, most):
        tensors = {name: torch.empty(shapes[name][0], dtype=shapes[name][1]) for name in names}
        load_shards(folder, tensors, alone=True)
        yield tensors


def _groups(sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    group: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if group and filled + size > most:
            yield group
            group, filled = [], 0
        group.append(name)
        filled += size
    if group:
        yield group


def write_whole(folder: Path, out: Path, most: int = _WHOLE_FILE_BYTES) -> None:
    """Write the whole tensors of ``folder`` as ``from_pretrained`` reads them.

    Args:
        folder: of :func:`save_shards`.
        out: is there.
        most: bytes of a file, which is also what is held in memory.

    Raises:
        ProxyByteError: if a file cannot be read.
    """
    sizes = {name: size.numel() * dtype.itemsize for name, (size, dtype) in stored_shapes(folder).items()}
    count = len(list(_groups(sizes, most)))
    place: dict[str, str] = {}
    for number, tensors in enumerate(whole_parts(folder, most), start=1):
        name = "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        save_file(tensors, out / name, metadata={"format": "pt"})
        place |= dict.fromkeys(tensors, name)
    if count > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": place}
        write_json(out / "model.safetensors.index.json", index)


@contextmanager
def _its_cause() -> Iterator[None]:
    """What stopped one of the processes, in the place of DCP's collection of all that did."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*assuming the intent is to.*")  # one process: it is
            yield
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items())
        if isinstance(cause, OSError):
            raise OSError(cause.errno, f"process {rank}: {cause.strerror or cause}", cause.filename) from error
        raise ProxyByteError(f"process {rank}: {cause}") from error
