"""How fast a BPE of 16,384 symbols codes source text; ``prepare_bench`` has the same with processes and files.

The baseline is ``Tokenizer.encode_batch`` of the tokenizers library on the same text, and both must give equal ids.
The text is the standard library's source; wall time, all cores, on both sides.
"""

import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, fastest, figure
from tokenizers import Tokenizer

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors.bpe import BpeCompressor
from proxybyte.training.compressors.bpe_train import Split, train_bpe
from proxybyte.training.texts import MEGABYTE

_TEXT_BYTES = 8 * MEGABYTE
_NUM_SYMBOLS = 16_384


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``encode_bpe16k_mb_per_s`` (the default split of text, on tiktoken) and ``encode_bpe16k_gpt2_mb_per_s``
    (GPT-2's, on gigatoken if it is installed).

    Raises:
        ProxyByteError: if the two sides give different ids.
    """
    fitted, coded = _standard_library()
    yield _row("encode_bpe16k_mb_per_s", train_bpe(fitted, _NUM_SYMBOLS, Split.CODE), coded)
    yield _row("encode_bpe16k_gpt2_mb_per_s", train_bpe(fitted, _NUM_SYMBOLS, Split.GPT2), coded)


def _standard_library() -> tuple[list[bytes], list[bytes]]:
    """Text to fit on and other text to code, the standard library's files in turns."""
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    paths = (path for path in Path(sysconfig.get_path("stdlib")).rglob("*.py") if "site-packages" not in path.parts)
    for place, path in enumerate(sorted(paths)):
        part, document = parts[place % 2], path.read_bytes()
        if _is_text(document) and sum(map(len, part)) < _TEXT_BYTES:
            part.append(document)
    return parts


def _is_text(document: bytes) -> bool:
    try:
        return bool(document.decode())
    except UnicodeDecodeError:
        return False


def _row(name: str, compressor: BpeCompressor, documents: list[bytes]) -> Figure:
    tokenizer = Tokenizer.from_str(compressor.tokenizer_json)
    texts = [document.decode() for document in documents]
    megabytes = sum(map(len, documents)) / MEGABYTE
    seconds, codes = fastest(lambda: compressor.encode_batch(documents), clock=time.perf_counter)
    base_seconds, encodings = fastest(
        lambda: tokenizer.encode_batch(texts, add_special_tokens=False), clock=time.perf_counter
    )
    for code, encoding in zip(codes, encodings, strict=True):
        if code.tolist() != encoding.ids:
            raise ProxyByteError(f"{name}: the compressor and the tokenizers library give different ids")
    return figure(name, megabytes / seconds, megabytes / base_seconds, "MB/s, all cores")
