"""The neural compressor: M1, a small byte model, and arithmetic coding in windows of equal information."""
