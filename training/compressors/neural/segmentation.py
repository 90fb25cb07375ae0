"""Cutting a document where M1 is uncertain, so that an edit changes the code of its surroundings only.

A document is first cut into *stretches* before each run of line feeds (and where a line is very long). M1 reads each
stretch from a fresh context, and a byte opens a segment where M1's entropy over it exceeds a threshold, or exceeds the
entropy over the byte before by more than a jump (the two rules of entropy patching: Pagnoni et al. 2024, Byte Latent
Transformer, arXiv 2412.09871, section 2.3). The segments of a stretch depend on that stretch alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .byte_lm import LOGIT_BITS, ByteLM
from .prefix_walk import PrefixWalk

LONGEST_STRETCH = 256
MOST_ENTROPY = 8.0
"""Bits of entropy that no byte can exceed: as a threshold or jump, never."""
_STRETCH = re.compile(rb"\n{1,128}[^\n]{0,128}|[^\n]{1,256}")


@dataclass(frozen=True)
class SegmentRule:
    """When a byte opens a segment.

    Attributes:
        threshold: bits of entropy over the byte.
        jump: bits of entropy over the byte more than over the byte before.
    """

    threshold: float
    jump: float


def stretches(document: bytes) -> list[bytes]:
    """``document`` cut into stretches of 1 to 256 bytes; joined they are the document."""
    return _STRETCH.findall(document)


def segments(lm: ByteLM, rule: SegmentRule, strings: Sequence[bytes]) -> list[list[bytes]]:
    """Segments of each of some stretches.

    Args:
        lm: the model.
        rule: when a byte opens a segment.
        strings: distinct and sorted stretches.
    """
    walk = PrefixWalk(lm, strings)
    opens = torch.zeros(walk.text.shape, dtype=torch.bool, device=lm.device)
    opens[:, 0] = True
    threshold, jump = (int(bits * 2**LOGIT_BITS) for bits in (rule.threshold, rule.jump))
    before = lm.entropies(walk.states)
    while True:
        walk.keep(walk.remaining() > 1)
        if not len(walk.lanes):
            break
        parent, _ = walk.advance()
        entropy = lm.entropies(walk.states)
        uncertain = (entropy > threshold) | (entropy - before[parent] > jump)
        opens[walk.lanes, walk.depth] = uncertain[walk.node]
        before = entropy
    return _cut(strings, opens.cpu().numpy())


def _cut(strings: Sequence[bytes], opens: np.ndarray) -> list[list[bytes]]:
    lane, place = np.nonzero(opens)
    ends = np.append(place[1:], 0)
    ends[np.append(lane[1:] != lane[:-1], True)] = LONGEST_STRETCH
    cut: list[list[bytes]] = [[] for _ in strings]
    for i, start, end in zip(lane.tolist(), place.tolist(), ends.tolist(), strict=True):
        cut[i].append(strings[i][start:end])
    return cut
