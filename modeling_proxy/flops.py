r"""How much arithmetic a model does for a symbol.

With :math:`N` the weights that multiply a symbol (all matrices, the head among them, but not the embedding, which is
looked up; of a mixture of experts only those that a symbol visits), :math:`H` heads of size :math:`d` and :math:`c`
keys that an average query attends to,

.. math:: F_{forward} = 2 N + \sum_{layers} 4 H d c, \qquad F_{training} = 3 (F_{forward} + 2 N_{heads}),

where :math:`N_{heads}` counts the weights of the heads that predict further, which training computes (a pass that is
asked for drafts computes the 320 raw rows of each); a multiply-add counts two, a query meets each key twice (score and
value), and backward computes two products for each one of forward. Without windows a causal document of :math:`L`
symbols has :math:`c = (L + 1) / 2`; in EVA attention a summary counts as a key. Packed documents attend to themselves
alone, so :math:`L` is a document's length, not the row's. Norms, activations, the softmax and recomputation under
activation checkpointing are not counted, which is the convention of model FLOPs utilisation (Chowdhery et al. 2022,
arXiv 2204.02311, appendix B; causal attention is counted as what it needs, half).
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig

from .configuration_proxybyte import EvaConfig, ProxyByteConfig
from .modeling_eva import EvaModel
from .symbols import COMPRESSED_OFFSET


@dataclass(frozen=True)
class SymbolFlops:
    """Forward FLOPs of one symbol.

    Attributes:
        weights: in products with weights, heads that predict further left out.
        attention: in scores and weighted values, the mean over a document.
        heads: in the products of the heads that predict further, which training adds.
        drafts: in those with their raw rows alone, which a pass adds that is asked for drafts.
    """

    weights: float
    attention: float
    heads: float = 0.0
    drafts: float = 0.0

    @property
    def forward(self) -> float:
        """FLOPs of a forward pass that predicts the next symbol."""
        return self.weights + self.attention

    @property
    def drafting(self) -> float:
        """FLOPs of a forward pass that also drafts."""
        return self.forward + self.drafts

    @property
    def training(self) -> float:
        """FLOPs of forward and backward of the loss of all heads."""
        return 3 * (self.forward + self.heads)


def symbol_flops(config: ProxyByteConfig, document_length: int, raw_rows_only: bool = False) -> SymbolFlops:
    """FLOPs of one symbol in documents of ``document_length`` symbols.

    With ``raw_rows_only`` the head computes its first 320 rows alone.
    """
    backbone = config.backbone_config
    width = config.num_attention_heads * _head_size(backbone)
    if isinstance(backbone, EvaConfig):
        keys = backbone.num_hidden_layers * mean_eva_keys(document_length, backbone.window_size, backbone.chunk_size)
    else:
        keys = math.fsum(mean_keys(document_length, window) for window in _windows(backbone))
    head, raw_head = config.vocab_size * config.hidden_size, COMPRESSED_OFFSET * config.hidden_size
    first = raw_head if raw_rows_only else head
    more, raw = config.num_pred_heads - 1, config.num_raw_pred_heads
    return SymbolFlops(
        weights=2.0 * (_backbone_weights(backbone) + first),
        attention=4.0 * width * keys,
        heads=2.0 * (more * head + raw * raw_head),
        drafts=2.0 * (more + raw) * raw_head,
    )


def training_flops(
    config: ProxyByteConfig, row_length: int, document_length: int | None = None, raw_rows_only: bool = False
) -> float:
    """FLOPs of forward and backward over one row of ``row_length`` symbols.

    Args:
        config: of the model.
        row_length: symbols of a row.
        document_length: of the documents packed into it; one document that fills the row if absent.
        raw_rows_only: whether the loss is over the head's first 320 rows alone. A teacher's forward passes are not
            counted.
    """
    return row_length * symbol_flops(config, document_length or row_length, raw_rows_only).training


def mean_keys(length: int, window: int | None = None) -> float:
    """Keys that a query of a causal document attends to, the mean over its ``length`` queries.

    Args:
        length: symbols of the document.
        window: most keys a query may see, itself among them; all before it if absent.
    """
    reach = length if window is None else min(length, window)
    return (reach * (reach + 1) / 2 + (length - reach) * reach) / length


def mean_eva_keys(length: int, window: int, chunk: int) -> float:
    """Keys and summaries that a query of EVA attention attends to, the mean over a document alone.

    Args:
        length: symbols of the document.
        window: positions of a window.
        chunk: positions of a chunk.
    """
    whole, rest = divmod(length, window)
    exact = whole * window * (window + 1) / 2 + rest * (rest + 1) / 2
    earlier = window * whole * (whole - 1) / 2 + rest * whole
    return (exact + earlier * window / chunk) / length


def _windows(backbone: PreTrainedConfig) -> list[int | None]:
    """The attention window of each layer."""
    window = getattr(backbone, "sliding_window", None)
    kinds = getattr(backbone, "layer_types", None)
    if kinds is None:
        return [window] * backbone.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _head_size(backbone: PreTrainedConfig) -> int:
    return getattr(backbone, "head_dim", None) or backbone.hidden_size // backbone.num_attention_heads


def _backbone_weights(backbone: PreTrainedConfig) -> float:
    """Weights of ``backbone`` that multiply one symbol, counted on a model without storage."""
    with torch.device("meta"):
        model = EvaModel(backbone) if isinstance(backbone, EvaConfig) else AutoModel.from_config(backbone)
    chosen = getattr(backbone, "num_experts_per_tok", None)
    total = 0.0
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding) or weight.ndim < 2:
                continue
            # Experts are stacked along the first of three dimensions.
            total += weight.numel() * (chosen / len(weight) if weight.ndim == 3 and chosen else 1)
    return total
