"""Benchmarks of this room: each module's ``measure()`` returns rows for ``proxybyte bench``."""
