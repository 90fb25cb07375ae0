r"""Superposed bytes (arXiv 2605.06546): a compressed view that needs no compressor and no rows of its own.

A position reads a bag of :math:`s` bytes at once, the mean of their rows, and predicts the bytes of the next bag
without their order, all from the same head:

.. math:: x_t = \frac{1}{|B_t|} \sum_{b \in B_t} e(b), \qquad
          \ell_t = -\frac{1}{|B_{t+1}|} \sum_{b \in B_{t+1}} \log p(b \mid h_t) .

A bag's target counts as one target of the loss. What is logged of it is the sum over its bytes: a code of the bag
that writes each byte for itself, so that its bits per byte mean something.
"""

from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from torch.nn import functional as F

from proxybyte.losses import mean_loss, soft_cap
from proxybyte.modeling_proxybyte import ProxyByteOutput
from proxybyte.symbols import IGNORE_INDEX, NUM_RAW_SYMBOLS, Special

from ..stream.mixed_view import BAG, PackedBatch

_PAD = int(Special.PAD)


def bag_inputs(model: nn.Module, batch: PackedBatch) -> dict[str, Any]:
    """Keyword arguments of ``forward``: rows in the place of symbols, and no label where a bag is to be predicted.

    Args:
        model: of the run, wrapped or not.
        batch: with bags.
    """
    assert batch.bags is not None
    bare: Any = extract_model_from_parallel(model, keep_torch_compile=False)
    embedding = bare.get_input_embeddings()
    bags = batch.input_ids == BAG
    symbols = batch.input_ids.masked_fill(bags, _PAD)
    if bare.reads_suffixes:
        rows, _ = bare.suffix_rows.read(embedding, symbols, batch.position_ids, None, None)
    else:
        rows = embedding(symbols)
    means = F.embedding_bag(batch.bags[bags], embedding.weight, mode="mean", padding_idx=_PAD)
    return {
        "inputs_embeds": rows.masked_scatter(bags[..., None], means.to(rows.dtype)),
        "position_ids": batch.position_ids,
        "labels": batch.labels.masked_fill(batch.labels == BAG, IGNORE_INDEX),
        "use_cache": False,
    }


def bag_losses(
    model: nn.Module, batch: PackedBatch, share: float, raw_rows_only: bool
) -> tuple[torch.Tensor, ProxyByteOutput]:
    """What to differentiate, and the model's output, whose ``target_nll`` has the nats of whole bags.

    Args:
        model: of the run, wrapped or not.
        batch: with bags.
        share: what the sum over targets is divided by.
        raw_rows_only: whether the loss knows the first 320 rows alone.
    """
    assert batch.bags is not None
    asked = {"num_items_in_batch": share, "raw_targets_only": raw_rows_only, "return_hidden": True}
    output = model(**bag_inputs(model, batch), **asked)
    wanted = batch.labels[:, 1:] == BAG
    bytes_ = batch.bags[:, 1:][wanted]
    nats = bag_nats(model, output.last_hidden_state[:, :-1][wanted], bytes_, raw_rows_only)
    held = (bytes_ != _PAD).sum(dim=1).clamp(min=1)
    loss = output.loss + mean_loss((nats / held).sum(), share)
    return loss, replace(output, target_nll=output.target_nll.masked_scatter(wanted, nats.detach()))


def bag_nats(model: nn.Module, hidden: torch.Tensor, bytes_: torch.Tensor, raw_rows_only: bool) -> torch.Tensor:
    """Nats of the bytes of each bag together, shape ``(N,)``.

    Args:
        model: of the run, wrapped or not.
        hidden: what the head reads, shape ``(N, D)``.
        bytes_: symbols of the bag that follows, ``<pad>`` where it has fewer, shape ``(N, s)``.
        raw_rows_only: whether the head's first 320 rows are all that there are.
    """
    bare: Any = extract_model_from_parallel(model, keep_torch_compile=False)
    weight = bare.lm_head.weight[:NUM_RAW_SYMBOLS] if raw_rows_only else bare.lm_head.weight
    cap = getattr(bare.config.backbone_config, "final_logit_softcapping", None)
    logits = soft_cap(F.linear(hidden, weight).to(torch.promote_types(hidden.dtype, torch.float32)), cap)
    there = bytes_ != _PAD
    total = torch.logsumexp(logits, dim=1) * there.sum(dim=1)
    return total - (logits.gather(1, bytes_) * there).sum(dim=1)
