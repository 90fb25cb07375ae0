"""Which documents go where: duplicates, the cap, the validation split, as a pure function of sizes and hashes.

A *unit* is what is never divided: all documents of one key, or a single document that has none, with all the pieces
that it was cut into. Units of like size are drawn by a seeded hash, so that the same input and seed give the same
corpus on any machine, and short documents are held out as often as long ones.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

import numpy as np

from proxybyte.errors import ProxyByteError, WrongOption
from proxybyte.training.texts.records import DIGEST_BYTES, MEGABYTE, Document, digest_of


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
            told = f"validation_share is {self.validation_share}: give a share from 0 to below 1"
            raise WrongOption(told, "validation_share")
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
            self._units.append(int.from_bytes((document.whole or digest)[:8], "little"))
        else:
            name = document.key.encode("utf-8")
            unit = int.from_bytes(blake2b(name, digest_size=8, person=b"unit").digest(), "little")
            self.unit_names.setdefault(unit, document.key)
            self._units.append(unit)

    def content(self) -> tuple[bytes, Sequence[int], Sequence[int], Mapping[int, str]]:
        """What :meth:`extend` takes: digests in one, sizes, units, and the names of those that have one."""
        return bytes(self._digests), self._sizes, self._units, self.unit_names

    def extend(self, digests: bytes, sizes: Sequence[int], units: Sequence[int], names: Mapping[int, str]) -> None:
        """Append documents that another catalogue holds."""
        self._digests += digests
        self._sizes.extend(sizes)
        self._units.extend(units)
        for unit, name in names.items():
            self.unit_names.setdefault(unit, name)

    def __len__(self) -> int:
        return len(self._sizes)

    def digest(self, index: int) -> bytes:
        """Digest of document ``index``."""
        return bytes(self._digests[DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)])

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
        halves = np.frombuffer(self._digests, dtype=[("high", "<u8"), ("low", "<u8")])
        order = np.lexsort((halves["low"], halves["high"]))  # stable: equal digests stay in reading order
        first = np.ones(len(self), dtype=bool)
        same = np.ones(max(0, len(self) - 1), dtype=bool)
        for half in ("high", "low"):  # one after the other, to hold less
            ranked = halves[half][order]
            same &= ranked[1:] == ranked[:-1]
        first[order[1:]] = ~same
        return first


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
        kept = _draw(units, sizes, rule.max_bytes, f"sample:{rule.seed}")
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


def held_out_alone(text: bytes, share: float, seed: int) -> bool:
    """Whether a document is held out where nothing is known of the others: by a hash of its bytes, with this chance."""
    unit = np.array([int.from_bytes(digest_of(text)[:8], "little")], dtype=np.uint64)
    return bool(_hashes(unit, f"validation:{seed}")[0] < share * 2.0**64)


def _hold_out(units: np.ndarray, sizes: np.ndarray, rule: SplitRule) -> np.ndarray:
    """Units of the validation split, bool of shape ``(units,)``; the smallest one where the share holds none."""
    if len(units) < 2:
        raise ProxyByteError(
            "everything kept belongs to one package, key or document, so no other can be held out: "
            "name a folder above it, use --by-document, or --validation-share 0"
        )
    chosen = _draw(units, sizes, int(sizes.sum() * rule.validation_share), f"validation:{rule.seed}")
    if not chosen.any():
        chosen[np.argmin(sizes)] = True
    return chosen


def _draw(units: np.ndarray, sizes: np.ndarray, room: int, purpose: str) -> np.ndarray:
    """Units of at most ``room`` bytes in all, of all sizes alike; bool of shape ``(units,)``.

    Units sorted by size are cut into groups from which one each is due (20 units where a twentieth of the bytes is
    wanted). From the smallest group up, units are taken in the order of a seeded hash while what is taken stays
    within the same share of all bytes so far, and within twice that share of all units. So no group gives more than
    its share for want of room in another, as happens where units that do not fit are passed over and the room is
    filled with small ones.
    """
    total = int(sizes.sum())
    if room >= total:
        return np.ones(len(units), dtype=bool)
    taken = np.zeros(len(units), dtype=bool)
    if not room:
        return taken
    hashes = _hashes(units, purpose)
    by_size = np.lexsort((units, hashes, sizes))
    group = -(-total // room)
    seen = used = 0
    # Cut from the end, so that the largest units, which count most, make a whole group.
    for end in range((len(units) - 1) % group + 1, len(units) + 1, group):
        members = by_size[max(0, end - group) : end]
        seen += int(sizes[members].sum())
        left, due = room * seen // total - used, -(-2 * room * end // total) - int(taken.sum())
        small = 2 * due * sizes[members] < left  # later, or where sizes differ much the count is used up by crumbs
        for unit in members[np.lexsort((units[members], hashes[members], small))].tolist():
            size = int(sizes[unit])
            if due and size <= left:
                taken[unit] = True
                used, left, due = used + size, left - size, due - 1
    return taken


def _hashes(units: np.ndarray, purpose: str) -> np.ndarray:
    """A hash of (unit, purpose) for each unit, uint64: the order that it gives looks random.

    The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    salt = blake2b(purpose.encode(), digest_size=8).digest()
    mixed = units ^ np.uint64(int.from_bytes(salt, "little"))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
