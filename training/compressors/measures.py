"""What tells a good proxy from a bad one before any model is trained; each figure by its definition.

Stability: a model can only carry over what it learns in symbols to bytes if a small edit of the text stays a small
edit of the symbols (arXiv 2602.04289, where gzip fails on this account). Collisions: a symbol that stands for many
different strings says little about the bytes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from proxybyte.errors import ProxyByteError

from .protocol import CannotEncode, Compressor, CutsWindows, usable_threads

_BATCH = 2048
_UNICODE_END = 0x110000


@dataclass(frozen=True)
class Frequencies:
    """How often each symbol occurs.

    Attributes:
        used: number of different symbols seen.
        used_share: that number over the size of the vocabulary.
        entropy_bits: entropy of the symbols' frequencies, bits a symbol.
        by_rank: ``(rank, share)`` at ranks 1, 2, 4, ... up to ``used``: the share of all occurrences.
    """

    used: int
    used_share: float
    entropy_bits: float
    by_rank: list[tuple[int, float]]


def frequencies(codes: Iterable[np.ndarray], num_symbols: int) -> Frequencies:
    """Frequencies over all documents' codes."""
    counts = np.zeros(num_symbols, dtype=np.int64)
    for code in codes:
        counts += np.bincount(code, minlength=num_symbols)
    shares = np.sort(counts[counts > 0])[::-1] / max(1, counts.sum())
    entropy = float(-(shares * np.log2(shares)).sum())
    ranks = [1 << power for power in range(len(shares).bit_length())]
    by_rank = [(rank, float(shares[rank - 1])) for rank in ranks]
    return Frequencies(len(shares), len(shares) / num_symbols, abs(entropy), by_rank)


@dataclass(frozen=True)
class Collisions:
    """Different strings behind one symbol. Symbols that end no byte are left out.

    Attributes:
        chunks_per_symbol: mean number of different strings over the symbols seen.
        most_chunks: the largest number.
        rate: share of occurrences whose string is not the most frequent one of its symbol.
        prefix_ratio: mean, over the other strings of symbols with more than one, of the length of the prefix shared
            with the most frequent, over the longer of the two; None if no symbol has two.
    """

    chunks_per_symbol: float
    most_chunks: int
    rate: float
    prefix_ratio: float | None


def collisions(compressor: Compressor, documents: Sequence[bytes], codes: Sequence[np.ndarray]) -> Collisions | None:
    """Collisions in ``documents`` and their codes; None if no symbol of the compressor stands for bytes of its own."""
    seen: defaultdict[int, Counter[bytes]] = defaultdict(Counter)
    for document, code in zip(documents, codes, strict=True):
        ends = compressor.borders(code)
        if ends is None and isinstance(compressor, CutsWindows):
            ends = compressor.chunk_ends(document)
        if ends is None:
            return None
        starts = np.concatenate([np.zeros(1, dtype=np.int64), ends])[:-1] if len(ends) else ends
        spells = np.flatnonzero(ends > starts)
        for symbol, start, end in zip(
            code[spells].tolist(), starts[spells].tolist(), ends[spells].tolist(), strict=True
        ):
            seen[symbol][document[start:end]] += 1
    ratios: list[float] = []
    others = total = 0
    for chunks in seen.values():
        (top, top_count), *rest = chunks.most_common()
        total += top_count + sum(count for _, count in rest)
        others += sum(count for _, count in rest)
        ratios.extend(_shared_prefix(top, chunk) / max(len(top), len(chunk)) for chunk, _ in rest)
    sizes = [len(chunks) for chunks in seen.values()] or [0]
    mean_ratio = float(np.mean(ratios)) if ratios else None
    return Collisions(float(np.mean(sizes)), max(sizes), others / max(1, total), mean_ratio)


def _shared_prefix(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


@dataclass(frozen=True)
class EditedSamples:
    """Snippets of text, each with and without some of its characters; the same for every compressor compared.

    Attributes:
        before: UTF-8 snippets.
        after: the same ones after the deletion.
    """

    before: list[bytes]
    after: list[bytes]


def delete_characters(
    documents: Sequence[bytes], samples: int, *, characters: int = 512, share: float = 0.1, seed: int = 0
) -> EditedSamples:
    """Draw snippets uniformly over the text and delete characters from each.

    Args:
        documents: text; documents that are not UTF-8 are left out.
        samples: how many snippets.
        characters: length of a snippet (shorter where its document is).
        share: ``round(share * length)`` characters go, drawn without replacement.
        seed: of all draws.

    Raises:
        ProxyByteError: if no document is UTF-8 text.
    """
    texts = [np.frombuffer(text.encode("utf-32-le"), dtype="<u4") for text in _decoded(documents) if text]
    if not texts:
        raise ProxyByteError("no document is UTF-8 text: there are no characters to delete")
    rng = np.random.default_rng(seed)
    lengths = np.array([len(text) for text in texts])
    before: list[bytes] = []
    after: list[bytes] = []
    for place in rng.choice(len(texts), size=samples, p=lengths / lengths.sum()):
        start = int(rng.integers(0, max(1, lengths[place] - characters + 1)))
        snippet = texts[place][start : start + characters]
        kept = np.ones(len(snippet), dtype=bool)
        kept[rng.choice(len(snippet), size=round(share * len(snippet)), replace=False)] = False
        before.append(_utf8(snippet))
        after.append(_utf8(snippet[kept]))
    return EditedSamples(before, after)


def _decoded(documents: Sequence[bytes]) -> Iterable[str]:
    for document in documents:
        try:
            yield document.decode()
        except UnicodeDecodeError:
            continue


def _utf8(points: np.ndarray) -> bytes:
    return points.tobytes().decode("utf-32-le").encode()


@dataclass(frozen=True)
class Stability:
    """Normalised Levenshtein distance between the codes of each snippet before and after the edit: 0 same, 1 unlike.

    Attributes:
        distance: mean over the snippets.
        standard_error: of that mean.
        samples: snippets that could be coded both before and after.
    """

    distance: float
    standard_error: float
    samples: int


def stability(
    compressor: Compressor, edited: EditedSamples, advance: Callable[[int], object] | None = None
) -> Stability:
    """Stability of the codes; the distance is divided by the longer code's length.

    Args:
        compressor: any.
        edited: the snippets.
        advance: called with the number of snippets done since.

    Raises:
        ProxyByteError: if no snippet can be coded.
    """
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    distances: list[np.ndarray] = []
    for start in range(0, len(edited.before), _BATCH):
        batch = slice(start, start + _BATCH)
        one, other = _coded_pairs(compressor, edited.before[batch], edited.after[batch])
        scorer = Levenshtein.normalized_distance
        distances.append(cpdist(one, other, scorer=scorer, workers=usable_threads(), dtype=np.float64))
        if advance is not None:
            advance(len(edited.before[batch]))
    values = np.concatenate(distances)
    if not len(values):
        raise ProxyByteError(f"{compressor.name}: codes none of the {len(edited.before)} snippets")
    return Stability(float(values.mean()), float(values.std() / np.sqrt(len(values))), len(values))


def _coded_pairs(
    compressor: Compressor, before: Sequence[bytes], after: Sequence[bytes]
) -> tuple[list[str], list[str]]:
    """Codes of the snippets that can be coded both before and after, as text."""
    one: list[str] = []
    other: list[str] = []
    for left, right in zip(compressor.encode_batch(before), compressor.encode_batch(after), strict=True):
        if not isinstance(left, CannotEncode) and not isinstance(right, CannotEncode):
            one.append(_as_text(left))
            other.append(_as_text(right))
    return one, other


def _as_text(code: np.ndarray) -> str:
    """The code as one character a symbol, which is what the distance is fastest on."""
    if code.size and int(code.max()) >= _UNICODE_END:
        raise ProxyByteError(f"stability is measured for symbols under {_UNICODE_END}, not {int(code.max())}")
    return code.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
