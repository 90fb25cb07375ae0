"""Memory of ``prepare`` and ``corpus``: by the longest document, not by symbols, and not by the number of documents.

Peaks are VmHWM of a fresh process, whose memory is its own from `exec` on (`ru_maxrss` begins at its parent's).
"""

import subprocess
import sys
from pathlib import Path

import pytest

from proxybyte.training.compressors.bpe_train import Split, train_bpe
from proxybyte.training.texts import MEGABYTE

WORDS = b"def f(self, value):\n    return value + 1  # the next one\n\n\n"

_PREPARE = """
import sys
from pathlib import Path
from proxybyte.training.compressors import load_compressor
from proxybyte.training.prepare.columns import prepared_features
from proxybyte.training.prepare.shard import ShardEncoder, Verify
from proxybyte.training.prepare.tasks import plan_tasks
def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
folder = Path(sys.argv[1])
compressor = load_compressor(folder / "bpe")
compressor.encode_batch([b"some text to begin with " * 1000])
for name in ("train", "done"):
    (folder / "out" / name).mkdir(parents=True)
schema = prepared_features(compressor.num_symbols).arrow_schema
encoder = ShardEncoder(compressor, schema, folder / "out", Verify.ALL, lambda _: None)
tasks = plan_tasks(folder / "corpus", "digest", Verify.ALL)
before = peak()
totals = [encoder.run(task) for task in tasks]
assert not sum(part.raw_documents for part in totals)
print(sum(part.bytes for part in totals), sum(part.documents for part in totals), peak() - before)
"""
_CORPUS = """
import sys
from pathlib import Path
from proxybyte.training.corpus import CorpusOptions, collect_corpus
from proxybyte.training.corpus.split import SplitRule
def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
folder, split = Path(sys.argv[1]), SplitRule(validation_share=0.0)
collect_corpus(CorpusOptions(folder / "warm", paths=(folder / "few.jsonl",), split=split))
before = peak()
report = collect_corpus(CorpusOptions(folder / "corpus", paths=(folder / "many.jsonl",), split=split))
print(report.train.bytes, report.train.documents, peak() - before)
"""


def measured(script: str, folder: Path) -> tuple[int, int, int]:
    """Bytes of text, documents, and by how much the peak of a fresh process grew over them."""
    done = subprocess.run([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True, check=True)
    n_bytes, documents, grown = map(int, done.stdout.split())
    assert grown > MEGABYTE // 4  # 0 would be no figure
    return n_bytes, documents, grown


@pytest.mark.parametrize(
    ("split", "megabytes"), [(Split.CODE, 48), (Split.GPT2, 48), pytest.param(Split.CODE, 400, marks=pytest.mark.slow)]
)
def test_a_long_document_takes_a_few_times_its_length(tmp_path, write_shard, split, megabytes):
    """Read from parquet (the page, the column), held as bytes, its symbols: it was 23 times with Python's integers."""
    train_bpe([WORDS * 10], 300, split).save(tmp_path / "bpe")
    (tmp_path / "corpus").mkdir()
    write_shard(tmp_path / "corpus" / "train-00000.parquet", [WORDS * (megabytes * MEGABYTE // len(WORDS))], 1)
    n_bytes, _, grown = measured(_PREPARE, tmp_path)
    assert grown < 6 * n_bytes + 96 * MEGABYTE


def test_tiny_documents_in_one_row_group_take_the_memory_of_a_batch(tmp_path, write_shard):
    train_bpe([WORDS * 10], 300, Split.GPT2).save(tmp_path / "bpe")
    (tmp_path / "corpus").mkdir()
    write_shard(tmp_path / "corpus" / "train-00000.parquet", [b"t%d" % number for number in range(300_000)], 300_000)
    _, documents, grown = measured(_PREPARE, tmp_path)
    assert documents == 300_000
    assert grown < 160 * MEGABYTE  # 100 MB here, on the tree that set 64 too: the engine keeps words


def test_a_corpus_of_tiny_documents_takes_what_sorting_its_catalogue_does(tmp_path):
    for name, count in {"few": 100, "many": 300_000}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "t{number}"}}\n' for number in range(count)))
    _, documents, grown = measured(_CORPUS, tmp_path)
    assert documents == 300_000
    assert grown < 32 * MEGABYTE + 200 * documents  # 32 bytes of each, and their sorting; a row group waits
