"""How fast a 16k BPE codes source text, beside the tokenizers library on the same text with the same ids."""

import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from proxybyte.errors import ProxyByteError

from ..compressors.bpe import BpeCompressor
from ..compressors.bpe_train import Split, train_bpe

MEGABYTE = 1e6
_TRAIN_BYTES = 12_000_000
_TEST_BYTES = 6_000_000
_SYMBOLS = 16_384
_REPEATS = 3


def measure() -> list[dict]:
    """Rows ``prepare_bpe16k_mb_per_s`` (the default split) and ``prepare_bpe16k_gpt2_mb_per_s``; all cores, wall time.

    Raises:
        ProxyByteError: if the two sides give different ids.
    """
    train, test = _standard_library()
    return [
        _row("prepare_bpe16k_mb_per_s", train_bpe(train, _SYMBOLS, Split.CODE), test),
        _row("prepare_bpe16k_gpt2_mb_per_s", train_bpe(train, _SYMBOLS, Split.GPT2), test),
    ]


def _standard_library() -> tuple[list[bytes], list[bytes]]:
    """Source text to train on and other text to code, the standard library's files in turns."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    train: list[bytes] = []
    test: list[bytes] = []
    for place, path in enumerate(path for path in paths if "site-packages" not in path.parts):
        part, limit = (test, _TEST_BYTES) if place % 3 == 0 else (train, _TRAIN_BYTES)
        text = path.read_bytes()
        if _is_text(text) and sum(map(len, part)) < limit:
            part.append(text)
    return train, test


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def _row(name: str, compressor: BpeCompressor, documents: list[bytes]) -> dict:
    tokenizer = Tokenizer.from_str(compressor.tokenizer_json)
    texts = [document.decode() for document in documents]
    megabytes = sum(map(len, documents)) / MEGABYTE
    seconds, codes = _fastest(lambda: compressor.encode_batch(documents))
    base_seconds, encodings = _fastest(lambda: tokenizer.encode_batch(texts, add_special_tokens=False))
    for code, encoding in zip(codes, encodings, strict=True):
        if code.tolist() != encoding.ids:
            raise ProxyByteError(f"{name}: the compressor and the tokenizers library give different ids")
    value, baseline = megabytes / seconds, megabytes / base_seconds
    return {"name": name, "value": value, "unit": "MB/s", "baseline": baseline, "ratio": value / baseline}


def _fastest(work: Callable) -> tuple[float, list]:
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result
