"""Compressors: one protocol, one file a family, one registry."""
