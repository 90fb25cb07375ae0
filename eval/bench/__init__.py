"""Benchmarks of this room; each module has ``measure()``, which returns rows for ``make bench``."""
