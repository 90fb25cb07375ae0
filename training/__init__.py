"""From text to a trained model: compressors, the prepared dataset, the stream plan, the training loop."""
