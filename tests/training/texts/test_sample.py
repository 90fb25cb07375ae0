"""``--sample``: text from all over the sources, the same for the same seed, and not more than was asked."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxybyte.cli import main
from proxybyte.training.texts import TextSource, records, tables
from proxybyte.training.texts import sources as readers
from proxybyte.training.texts.records import DEFAULT_SUFFIXES


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A parquet file of 40 parts, 10 files of JSON lines, and a folder: 1,000 documents of 100 bytes each."""
    for module in (tables, readers):
        monkeypatch.setattr(module, "PART_BYTES", 3000)
    texts = [f"{source} {number:4d} ".ljust(100, "x") for source in "pjt" for number in range(1000)]
    pq.write_table(pa.table({"text": texts[:1000]}), tmp_path / "p.parquet", row_group_size=25, compression="none")
    for file in range(10):
        rows = texts[1000 + 100 * file : 1100 + 100 * file]
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (tmp_path / "tree").mkdir()
    for number, text in enumerate(texts[2000:]):
        (tmp_path / "tree" / f"{number:04d}.py").write_text(text)
    paths = [tmp_path / "p.parquet", *sorted(tmp_path.glob("*.jsonl")), tmp_path / "tree"]
    return paths, texts


def sample(paths, n_bytes: int | None, seed: int | None) -> list[str]:
    source = TextSource(paths, max_bytes=n_bytes, sample_seed=seed, suffixes=DEFAULT_SUFFIXES)
    return [text.decode() for text in source.read()]


def test_a_sample_comes_from_all_over_the_sources_and_a_beginning_does_not(sources):
    paths, texts = sources
    drawn = sample(paths, 30_000, 7)
    assert len(drawn) == 300 and set(drawn) < set(texts) and len(set(drawn)) == 300
    by_source = Counter(text[0] for text in drawn)
    assert set(by_source) == set("pjt") and min(by_source.values()) >= 20
    hundreds = {(text[0], int(text.split()[1]) // 100) for text in drawn}
    assert len(hundreds) >= 24, "of 30 hundreds of documents"
    assert {text[0] for text in sample(paths, 30_000, None)} == {"p"}


def test_a_seed_says_which(sources):
    paths, _ = sources
    assert sample(paths, 20_000, 1) == sample(paths, 20_000, 1)
    assert set(sample(paths, 20_000, 1)) != set(sample(paths, 20_000, 2))


def test_a_sample_larger_than_the_sources_is_all_of_them(sources):
    paths, texts = sources
    assert sorted(sample(paths, 10**9, 3)) == sorted(texts)


def test_a_bpe_is_fitted_on_a_sample(sources, tmp_path, capsys):
    paths, _ = sources
    words = ["compressor", "fit", "bpe", "--corpus", *map(str, paths), "--symbols", "300", "--out"]
    assert main([*words, str(tmp_path / "a"), "--max-mb", "0.03", "--sample"]) == 0
    assert "from 30,000 bytes" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "b"), "--max-mb", "0.03", "--sample", "0"]) == 0
    assert main([*words, str(tmp_path / "c"), "--max-mb", "0.03", "--sample", "5"]) == 0
    a, b = ((tmp_path / name / "tokenizer.json").read_bytes() for name in "ab")
    assert a == b
    assert main([*words, str(tmp_path / "d"), "--sample"]) == 2
    assert "--sample draws as much as --max-mb says" in capsys.readouterr().err
    assert records.PART_BYTES == 64_000_000
