"""The compiled codebook beside a BPE of the same size from the same text, and the neural coder beside a plain one.

Also what each boundary rule costs in ratio and gains in stability (the distance between codes before and after 10% of
the characters are deleted), beside the codebook without boundaries.

Text is the standard library's source: some packages are held out, everything is learned from the rest. Speeds are
megabytes a second of one core's CPU time, each the best of three. M1 has 256 units and learns for a few minutes.
"""

import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from figures import Figure, fastest, figure, one_core
from naive_neural import naive_codes

from proxybyte.training.compressors.bpe_train import Split, train_bpe
from proxybyte.training.compressors.codebook import Boundary, CodebookCompressor
from proxybyte.training.compressors.codebook.growth import GrowthRule, grow
from proxybyte.training.compressors.codebook.reweigh import reweigh
from proxybyte.training.compressors.measures import delete_characters, stability
from proxybyte.training.compressors.neural import NeuralCompressor, NeuralSettings
from proxybyte.training.compressors.neural.byte_lm import ByteLM
from proxybyte.training.compressors.neural.fit import FitOptions, TextSampler, fit, quantise
from proxybyte.training.compressors.protocol import CannotEncode, Compressor, encode_one
from proxybyte.training.texts import MEGABYTE

SYMBOLS = 65_536
HELD_OUT = ("asyncio", "email", "http", "json", "logging", "unittest", "xml")
"""Packages that nothing is learned from; nor from their tests."""
M1 = FitOptions(width=256, steps=400, batch=256, context=24, learning_rate=4e-3)
_NAIVE_BYTES = 12_000
_SNIPPETS = 2000


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``codebook_*`` and ``neural_vs_naive_speedup``."""
    learned, held_out = standard_library()
    with one_core():
        lm = fitted_m1(learned)
        trie = grow(lm, GrowthRule(SYMBOLS))
        codebook = CodebookCompressor(trie)
        reweighed = CodebookCompressor(reweigh(trie, learned, Boundary.NONE))
        bpe = train_bpe(learned, SYMBOLS, Split.CODE)
        mine, theirs = _speeds(codebook, held_out), _speeds(bpe, held_out)
        ratio = bytes_per_symbol(codebook, held_out)
        yield figure("codebook_encode_mb_per_s", mine[0], theirs[0], "MB/s, one core")
        yield figure("codebook_decode_mb_per_s", mine[1], theirs[1], "MB/s, one core")
        yield figure("codebook_bytes_per_symbol", ratio, bytes_per_symbol(bpe, held_out), "bytes")
        yield figure("codebook_reweighed_bytes_per_symbol", bytes_per_symbol(reweighed, held_out), ratio, "bytes")
        yield _neural_row(lm, held_out)
        yield from _boundary_rows(lm, codebook, held_out)


def standard_library() -> tuple[list[bytes], list[bytes]]:
    """Sources to learn from, and those of :data:`HELD_OUT`."""
    folder = Path(sysconfig.get_path("stdlib"))
    learned: list[bytes] = []
    held_out: list[bytes] = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        document = path.read_bytes()
        if "site-packages" in parts or not _is_text(document):
            continue
        if parts[0] in HELD_OUT:
            held_out.append(document)
        elif not any(name in part for part in parts for name in HELD_OUT):
            learned.append(document)
    return learned, held_out


def fitted_m1(documents: Sequence[bytes]) -> ByteLM:
    """M1 as :data:`M1` says, as integers."""
    with tempfile.TemporaryDirectory() as folder:
        return quantise(fit(TextSampler.of(documents), M1, Path(folder), torch.device("cpu")))


def bytes_per_symbol(compressor: Compressor, documents: Sequence[bytes]) -> float:
    """Bytes over symbols, over the documents that can be coded."""
    coded = [
        (len(document), len(code))
        for document, code in zip(documents, compressor.encode_batch(documents), strict=True)
        if not isinstance(code, CannotEncode)
    ]
    return sum(size for size, _ in coded) / sum(length for _, length in coded)


def _speeds(compressor: Compressor, documents: Sequence[bytes]) -> tuple[float, float]:
    """Encoding and decoding, MB/s."""
    megabytes = sum(map(len, documents)) / MEGABYTE
    encoding, codes = fastest(lambda: compressor.encode_batch(documents))
    decoding, _ = fastest(lambda: [compressor.decode(code) for code in codes])
    return megabytes / encoding, megabytes / decoding


def _boundary_rows(lm: ByteLM, free: Compressor, documents: Sequence[bytes]) -> Iterator[Figure]:
    edited = delete_characters(documents, _SNIPPETS)
    ratio, distance = bytes_per_symbol(free, documents), stability(free, edited).distance
    for boundary in (Boundary.LINE, Boundary.ENTROPY, Boundary.PRETOKEN):
        bound = CodebookCompressor(grow(lm, GrowthRule(SYMBOLS, boundary)))
        yield figure(f"codebook_{boundary}_bytes_per_symbol", bytes_per_symbol(bound, documents), ratio, "bytes")
        yield figure(f"codebook_{boundary}_edit_distance", stability(bound, edited).distance, distance, "of codes")


def _neural_row(lm: ByteLM, documents: Sequence[bytes]) -> Figure:
    settings = NeuralSettings(least_bytes_per_symbol=0.0)
    few = [document[: _NAIVE_BYTES // 4] for document in documents[:4]]
    plain, codes = fastest(lambda: [naive_codes(lm, settings, document) for document in few], repeats=1)
    compressor = NeuralCompressor(lm, settings, device="cpu")
    if [encode_one(compressor, document).tolist() for document in few] != codes:
        raise AssertionError("the batched coder and the plain one give different codes")
    compressor = NeuralCompressor(lm, settings, device="cpu")
    batched, _ = fastest(lambda: compressor.encode_batch(documents), repeats=1)
    speeds = sum(map(len, documents)) / batched, sum(map(len, few)) / plain
    return figure("neural_vs_naive_speedup", speeds[0] / 1000, speeds[1] / 1000, "kB/s, one core")


def _is_text(document: bytes) -> bool:
    try:
        return bool(document.decode())
    except UnicodeDecodeError:
        return False
