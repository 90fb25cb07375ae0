"""Compressors: one protocol, one file a family, one registry. Importing this package imports no torch."""

from .protocol import CannotEncode, Compressor, code_dtype, encode_one
from .registry import FAMILIES, Family, load_compressor, short_names
from .spelling import load_spelling, spelling_of

__all__ = [
    "FAMILIES",
    "CannotEncode",
    "Compressor",
    "Family",
    "code_dtype",
    "encode_one",
    "load_compressor",
    "load_spelling",
    "short_names",
    "spelling_of",
]
