"""FLOPs of a training row with all that a run adds to its model's own."""

from proxybyte import ProxyByteConfig
from proxybyte.flops import training_flops

from .config import TrainConfig
from .cross_view import cross_view_flops
from .source import TrainingData
from .spelled import spelled_flops


def row_flops(config: TrainConfig, shape: ProxyByteConfig, data: TrainingData) -> float:
    """FLOPs of forward and backward over one row, the step's share of what is done once a step among them.

    Args:
        config: the run.
        shape: of its model.
        data: whose documents say how far attention reaches.
    """
    row = training_flops(shape, config.plan.row_length, data.document_length, config.raw_rows_only)
    step = spelled_flops(config, data, shape.hidden_size, bool(shape.tie_word_embeddings))
    row += cross_view_flops(config.levers.cross_view, data, shape.hidden_size, config.batch.rows_per_step)
    return row + step / config.batch.rows_per_step
