"""The neural compressor: M1, a small byte model, and arithmetic coding in windows of equal information."""

from .compressor import NeuralCompressor, NeuralSettings
from .windows import Ending

__all__ = ["Ending", "NeuralCompressor", "NeuralSettings"]
