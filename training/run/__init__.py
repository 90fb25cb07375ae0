"""A training run: config, model, processes, steps, metrics, checkpoints."""
