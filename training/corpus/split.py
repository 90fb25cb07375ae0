"""Which documents go where: duplicates, the cap, the validation split, as a pure function of sizes and hashes.

A *unit* is what is never divided: all documents of one key, or a single document that has none. Units are taken in
the order of a seeded hash while they fit, so that the same input and seed give the same corpus on any machine.
"""

from array import array
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

import numpy as np

from proxybyte.errors import ProxyByteError
from proxybyte.training.corpus.records import MEGABYTE, Document

_DIGEST_BYTES = 16


class Fate(IntEnum):
    """What becomes of a document."""

    TRAIN = 0
    VALIDATION = 1
    DUPLICATE = 2
    OVER_CAP = 3


@dataclass(frozen=True)
class SplitRule:
    """How the corpus is cut.

    Attributes:
        validation_share: share of bytes to hold out, ``0 <= share < 1``.
        max_bytes: keep at most this many bytes of text; ``None`` for all.
        seed: draws the order in which units are taken.
    """

    validation_share: float = 0.05
    max_bytes: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ProxyByteError(f"--validation-share is {self.validation_share}: give a share from 0 to below 1")
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise ProxyByteError("--max-mb must be more than 0")


class Catalogue:
    """What the first pass over the sources remembers of each document: 32 bytes."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._sizes = array("q")
        self._units = array("Q")
        self.unit_names: dict[int, str] = {}
        """Key of each unit that has one."""

    def add(self, document: Document) -> None:
        """Append ``document``."""
        digest = digest_of(document.text)
        self._digests += digest
        self._sizes.append(len(document.text))
        if document.key is None:
            self._units.append(int.from_bytes(digest[:8], "little"))
        else:
            name = document.key.encode("utf-8")
            unit = int.from_bytes(blake2b(name, digest_size=8, person=b"unit").digest(), "little")
            self.unit_names.setdefault(unit, document.key)
            self._units.append(unit)

    def __len__(self) -> int:
        return len(self._sizes)

    def digest(self, index: int) -> bytes:
        """Digest of document ``index``."""
        return bytes(self._digests[_DIGEST_BYTES * index : _DIGEST_BYTES * (index + 1)])

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each document, int64 of shape ``(n,)``."""
        return np.array(self._sizes, dtype=np.int64)

    @property
    def units(self) -> np.ndarray:
        """Unit of each document, uint64 of shape ``(n,)``."""
        return np.array(self._units, dtype=np.uint64)

    def first_occurrence(self) -> np.ndarray:
        """Whether no earlier document has the same bytes; bool of shape ``(n,)``."""
        halves = np.frombuffer(bytes(self._digests), dtype=[("high", "<u8"), ("low", "<u8")])
        order = np.lexsort((halves["low"], halves["high"]))  # stable: equal digests stay in reading order
        ranked = halves[order]
        first = np.ones(len(self), dtype=bool)
        first[order[1:]] = ranked[1:] != ranked[:-1]
        return first


def digest_of(text: bytes) -> bytes:
    """Hash by which documents count as equal."""
    return blake2b(text, digest_size=_DIGEST_BYTES).digest()


def decide(catalogue: Catalogue, rule: SplitRule) -> np.ndarray:
    """Fate of each document, uint8 of shape ``(n,)``.

    Raises:
        ProxyByteError: if no unit fits under the cap, or a validation split is wanted and there is one unit only.
    """
    fate = np.full(len(catalogue), Fate.TRAIN, dtype=np.uint8)
    first = catalogue.first_occurrence()
    fate[~first] = Fate.DUPLICATE
    units, unit_of = np.unique(catalogue.units[first], return_inverse=True)
    sizes = np.bincount(unit_of, weights=catalogue.sizes[first], minlength=len(units)).astype(np.int64)
    kept = np.ones(len(units), dtype=bool)
    if rule.max_bytes is not None:
        kept = _take(sizes, _order(units, rule.seed, "sample"), rule.max_bytes)
        if not kept.any():
            raise ProxyByteError(
                f"--max-mb {rule.max_bytes / MEGABYTE:g} keeps nothing: the smallest package or document has "
                f"{sizes.min() / MEGABYTE:.3g} MB; raise it, or use --by-document"
            )
    held_out = np.zeros(len(units), dtype=bool)
    if rule.validation_share > 0:
        candidates = np.flatnonzero(kept)
        held_out[candidates] = _hold_out(units[candidates], sizes[candidates], rule)
    of_unit = np.where(kept, np.where(held_out, Fate.VALIDATION, Fate.TRAIN), Fate.OVER_CAP)
    fate[first] = of_unit[unit_of]
    return fate


def _hold_out(units: np.ndarray, sizes: np.ndarray, rule: SplitRule) -> np.ndarray:
    """Units of the validation split: as many as fit in its share, or the smallest one where none fits."""
    if len(units) < 2:
        raise ProxyByteError(
            "everything kept belongs to one package, key or document, so no other can be held out: "
            "name a folder above it, use --by-document, or --validation-share 0"
        )
    chosen = _take(sizes, _order(units, rule.seed, "validation"), int(sizes.sum() * rule.validation_share))
    if not chosen.any():
        chosen[np.argmin(sizes)] = True
    return chosen


def _take(sizes: np.ndarray, order: np.ndarray, room: int) -> np.ndarray:
    """Go through units in ``order`` and take each that still fits into ``room`` bytes; bool of shape ``(units,)``."""
    taken = np.zeros(len(sizes), dtype=bool)
    smallest = int(sizes.min(initial=room + 1))
    for unit, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        if size <= room:
            taken[unit] = True
            room -= size
        if room < smallest:
            break
    return taken


def _order(units: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """Places of ``units`` in the order of a hash of (unit, seed, purpose): a permutation that looks random.

    The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    salt = blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    mixed = units ^ np.uint64(int.from_bytes(salt, "little"))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.lexsort((units, mixed ^ (mixed >> np.uint64(31))))
