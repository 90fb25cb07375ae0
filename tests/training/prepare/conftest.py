"""A small corpus folder and a tiny tokenizer, real ones both."""

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from proxybyte.training.corpus.folder import SCHEMA

WORDS = ("def", "return", "import", "self", "class", "for", "in", "range", "len", "print", "None", "True", "x", "y")


def _some_text(seed: int, n_bytes: int) -> bytes:
    draw = random.Random(seed)
    return " ".join(draw.choices(WORDS, k=n_bytes // 5)).encode() + b" %d" % seed


def _write_shard(path: Path, texts: list[bytes], row_group: int) -> None:
    table = pa.table([texts, [f"{path.stem}:{number}" for number in range(len(texts))]], schema=SCHEMA)
    pq.write_table(table, path, row_group_size=row_group)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Path:
    """A byte-level BPE of 300 symbols, as a tokenizer's folder."""
    return _write_tokenizer(tmp_path_factory.mktemp("tiny-bpe"), None)


def _write_tokenizer(folder: Path, normalizer) -> Path:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator([" ".join(WORDS)], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    if normalizer is not None:
        bpe.normalizer = normalizer
    bpe.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Two train shards and a validation shard, with bytes that are not UTF-8 among them."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    _write_shard(folder / "train-00000.parquet", [_some_text(number, 2000) for number in range(30)], 4)
    _write_shard(folder / "train-00001.parquet", [b"\xff\x00 broken", *(_some_text(n, 500) for n in range(30, 60))], 7)
    _write_shard(folder / "validation-00000.parquet", [_some_text(number, 900) for number in range(60, 70)], 5)
    return folder


@pytest.fixture
def lowercase_tokenizer(tmp_path) -> Path:
    """The same with a normaliser, which refuses a document that holds a capital."""
    (tmp_path / "lower").mkdir()
    return _write_tokenizer(tmp_path / "lower", normalizers.Lowercase())


@pytest.fixture
def some_text() -> Callable[[int, int], bytes]:
    """Words drawn from a seed, about so many bytes."""
    return _some_text


@pytest.fixture
def write_shard() -> Callable[[Path, list[bytes], int], None]:
    """Writes documents as a corpus shard, so many to a row group."""
    return _write_shard
