"""Measuring trained models: bits per byte, lm-eval tasks."""
