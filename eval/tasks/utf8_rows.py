"""Whether what a model wrote is UTF-8; imports nothing of ours, so that the folder can be copied anywhere."""

from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a decoder puts in the place of bytes that are no UTF-8."""


def valid(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1.0 for a text without a replacement character but at its very end, where the limit may have cut one."""
    return {"valid_utf8": float(REPLACEMENT not in results[0].rstrip(REPLACEMENT))}
