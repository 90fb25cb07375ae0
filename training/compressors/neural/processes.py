"""One batch of documents coded by all processes of ``accelerate launch`` or ``torchrun``, each on its own device."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from ..protocol import CannotEncode, Compressor


def encode_over_processes(compressor: Compressor, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
    """What ``compressor.encode_batch(documents)`` gives, the work shared among the processes.

    Every process calls it with the same documents and gets the codes of all. Since a document's code does not depend
    on what is coded beside it, the result is the same for any number of processes. Process ``i`` of ``n`` takes every
    ``n``-th document from the longest down, so that shares are alike.

    Args:
        compressor: loaded by each process for itself; a neural one is then on the device of its ``LOCAL_RANK``.
        documents: any.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    if state.num_processes == 1:
        return compressor.encode_batch(documents)
    by_length = np.argsort([-len(document) for document in documents], kind="stable")
    shares = [by_length[rank :: state.num_processes] for rank in range(state.num_processes)]
    mine = compressor.encode_batch([documents[i] for i in shares[state.process_index]])
    codes = dict(zip(np.concatenate(shares).tolist(), gather_object(mine), strict=True))
    return [codes[i] for i in range(len(documents))]
