"""FLOPs of a training row with all that a run adds to its model's own."""

from proxybyte import ProxyByteConfig
from proxybyte.flops import training_flops
from proxybyte.symbols import NUM_RAW_SYMBOLS

from .config import TrainConfig
from .source import TrainingData
from .spelled import spelled_flops


def row_flops(config: TrainConfig, shape: ProxyByteConfig, data: TrainingData) -> float:
    """FLOPs of forward and backward over one row, the step's share of what is done once a step among them.

    Args:
        config: the run.
        shape: of its model.
        data: whose documents say how far attention reaches.
    """
    row = training_flops(shape, config.plan.row_length, data.document_length)
    if config.raw_rows_only:
        # The loss of the next symbol never multiplies the other rows: forward once, backward twice.
        row -= 3 * config.plan.row_length * 2.0 * (shape.vocab_size - NUM_RAW_SYMBOLS) * shape.hidden_size
    step = spelled_flops(config, data, shape.hidden_size, bool(shape.tie_word_embeddings))
    return row + step / config.batch.rows_per_step
