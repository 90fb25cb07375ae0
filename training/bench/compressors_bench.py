"""How fast a 16k BPE codes source text, beside the tokenizers library on the same text with the same ids.

The text is the standard library's source; wall time, all cores, on both sides.
"""

import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import numpy as np
from tokenizers import Tokenizer

from proxybyte.errors import ProxyByteError

from ..compressors.bpe import BpeCompressor
from ..compressors.bpe_train import Split, train_bpe
from ..compressors.texts import TextSource
from ..corpus import CorpusOptions, collect_corpus
from ..prepare import PrepareOptions, Verify, prepare_corpus

MEGABYTE = 1e6
_SYMBOLS = 16_384
_TRAIN_BYTES = 12_000_000
_ENCODE_BYTES = 6_000_000
_REPEATS = 3


def measure() -> list[dict]:
    """Rows ``prepare_bpe16k_mb_per_s`` and, for coding alone, ``encode_bpe16k[_gpt2]_mb_per_s``.

    Raises:
        ProxyByteError: if the two sides give different ids.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        collect_corpus(CorpusOptions(output=corpus, paths=(Path(sysconfig.get_path("stdlib")),)))
        texts = [text for text in TextSource([corpus]).read() if _is_text(text)]
        sample = texts[:: max(1, sum(map(len, texts)) // _ENCODE_BYTES)]
        code, gpt2 = (train_bpe(_first(texts, _TRAIN_BYTES), _SYMBOLS, split) for split in (Split.CODE, Split.GPT2))
        return [
            _prepare_row(Path(folder), code),
            _encode_row("encode_bpe16k_mb_per_s", code, sample),
            _encode_row("encode_bpe16k_gpt2_mb_per_s", gpt2, sample),
        ]


def _prepare_row(folder: Path, compressor: BpeCompressor) -> dict:
    """The whole of ``proxybyte prepare``: processes, coding, decoding each document again, writing."""
    compressor.save(folder / "bpe")
    options = PrepareOptions(folder / "corpus", str(folder / "bpe"), folder / "prepared", verify=Verify.ALL)
    manifest = prepare_corpus(options)
    rows = datasets.load_from_disk(str(folder / "prepared" / "train")).with_format("numpy")
    kept = [row for row in rows.select_columns(["text", "symbols"]) if _is_text(row["text"])]
    baseline, ids = _library_rate(compressor, [row["text"] for row in kept], repeats=1)
    _check_equal("prepare_bpe16k_mb_per_s", [row["symbols"] for row in kept], ids)
    return _as_row("prepare_bpe16k_mb_per_s", manifest.mb_per_s, baseline)


def _encode_row(name: str, compressor: BpeCompressor, documents: list[bytes]) -> dict:
    seconds, codes = _fastest(lambda: compressor.encode_batch(documents), _REPEATS)
    baseline, ids = _library_rate(compressor, documents, repeats=1)
    _check_equal(name, codes, ids)
    return _as_row(name, sum(map(len, documents)) / MEGABYTE / seconds, baseline)


def _library_rate(compressor: BpeCompressor, documents: list[bytes], repeats: int) -> tuple[float, list[list[int]]]:
    """MB/s and ids of ``Tokenizer.encode_batch``."""
    tokenizer = Tokenizer.from_str(compressor.tokenizer_json)
    texts = [document.decode() for document in documents]
    seconds, encodings = _fastest(lambda: tokenizer.encode_batch(texts, add_special_tokens=False), repeats)
    return sum(map(len, documents)) / MEGABYTE / seconds, [encoding.ids for encoding in encodings]


def _check_equal(name: str, codes: Sequence, ids: list[list[int]]) -> None:
    for ours, theirs in zip(codes, ids, strict=True):
        if not np.array_equal(ours, theirs):
            raise ProxyByteError(f"{name}: the compressor and the tokenizers library give different ids")


def _as_row(name: str, value: float, baseline: float) -> dict:
    return {"name": name, "value": value, "unit": "MB/s", "baseline": baseline, "ratio": value / baseline}


def _fastest(work: Callable, repeats: int) -> tuple[float, list]:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def _first(texts: list[bytes], n_bytes: int) -> list[bytes]:
    return texts[: int(np.searchsorted(np.cumsum([len(text) for text in texts]), n_bytes)) + 1]


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
