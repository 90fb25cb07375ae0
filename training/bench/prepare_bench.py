"""Text per second through ``proxybyte prepare`` with a BPE of 16,384 symbols.

The baseline is what one writes first: ``datasets.map`` with the same tokenizer through the
tokenizers library, as many processes, saved to disk. Both sides write codes of equal ids, and both times are those
of a user: wall time, processes started and files written.
"""

import tempfile
import time
from pathlib import Path

import datasets
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from proxybyte.training.compressors.bpe_train import train_bpe
from proxybyte.training.corpus import CorpusOptions, collect_corpus
from proxybyte.training.corpus.records import MEGABYTE
from proxybyte.training.corpus.split import SplitRule
from proxybyte.training.prepare import PrepareOptions, prepare_corpus
from proxybyte.training.prepare.workers import default_workers

TEXT_BYTES = 60 * MEGABYTE
FITTED_BYTES = 8 * MEGABYTE
NUM_SYMBOLS = 16_384


def measure() -> list[dict]:
    """Row ``prepare_bpe16k_mb_per_s`` for ``proxybyte bench``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = SplitRule(validation_share=0.0, max_bytes=TEXT_BYTES)
        report = collect_corpus(CorpusOptions(folder / "corpus", python_packages=True, split=split))
        documents = [
            text
            for shard in sorted((folder / "corpus").glob("train-*"))
            for text in pq.read_table(shard, columns=["text"])["text"].to_pylist()
        ]
        every = report.train.bytes // FITTED_BYTES
        train_bpe(documents[::every], NUM_SYMBOLS).save(folder / "bpe")
        ours = max(_prepare_rate(folder, number) for number in range(3))
        baseline = _map_rate(folder, [text.decode("utf-8", errors="replace") for text in documents[::every]])
    return [
        {
            "name": "prepare_bpe16k_mb_per_s",
            "value": ours,
            "unit": f"MB of source text/s, {default_workers()} processes, start to finish, every document verified",
            "baseline": baseline,
            "ratio": ours / baseline,
        }
    ]


def _prepare_rate(folder: Path, number: int) -> float:
    options = PrepareOptions(folder / "corpus", str(folder / "bpe"), folder / f"prepared-{number}")
    return prepare_corpus(options).mb_per_s


def _map_rate(folder: Path, texts: list[str]) -> float:
    """MB per second of the plain way, on as many documents as it can do in about the same time."""
    tokenizer = Tokenizer.from_file(str(folder / "bpe" / "tokenizer.json"))
    dataset = datasets.Dataset.from_dict({"text": texts})

    def encode(batch: dict[str, list]) -> dict[str, list]:
        return {"symbols": [code.ids for code in tokenizer.encode_batch(batch["text"])]}

    start = time.perf_counter()
    dataset.map(encode, batched=True, num_proc=default_workers()).save_to_disk(folder / "mapped")
    return sum(len(text.encode()) for text in texts) / MEGABYTE / (time.perf_counter() - start)
